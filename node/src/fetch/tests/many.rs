//! Many files at once.

use std::time::Instant;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_small_files_come_in_seconds() {
    let (source, sink) = (peer(1).await, peer(2).await);
    sink.meet(&source).await;
    let mut batch = source.store.batch();
    let claims: Vec<_> = (0..5_000_u32)
        .map(|number| {
            let mut bytes = noise(4096, 1);
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            wanted(&batch.put_with(bytes.into(), true).unwrap())
        })
        .collect();
    batch.commit().unwrap();
    let begun = Instant::now();
    let mut told = Vec::new();
    let mut progress = |done, total| {
        assert_eq!(total, 5_000 * 4096);
        told.push(done);
    };
    let fetched = sink.fetcher.fetch_all(claims.clone(), &mut progress);
    let fetched = timeout(DEADLINE, fetched).await.unwrap().unwrap();
    let took = begun.elapsed();
    assert_eq!(fetched.network_bytes, 5_000 * 4096);
    assert_eq!(told.last(), Some(&(5_000 * 4096)));
    assert!(told.is_sorted());
    for (claim, digests) in claims.iter().zip(&fetched.digests) {
        assert_eq!(claim.blake3, digests.blake3);
        assert!(sink.store.contains(&claim.blake3).unwrap());
    }
    assert!(took < Duration::from_secs(10), "it took {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_comes_as_far_as_it_can() {
    let (source, sink) = (peer(1).await, peer(2).await);
    sink.meet(&source).await;
    let large = source.add(&noise(3 * MIB, 2));
    let small = source.add(&noise(300, 2));
    let mut nowhere = small.clone();
    nowhere.blake3 = Blake3::of(b"nobody has it");
    let all = vec![large.clone(), nowhere.clone(), small.clone()];
    let error = sink
        .fetcher
        .fetch_all(all, &mut |_, _| {})
        .await
        .unwrap_err();
    assert!(
        matches!(error, FetchError::NoProvider { hash, .. } if hash == nowhere.blake3),
        "{error}"
    );
    for claim in [&large, &small] {
        assert!(sink.store.contains(&claim.blake3).unwrap());
    }
    let fetched = sink
        .fetcher
        .fetch_all(vec![large, small], &mut |_, _| {})
        .await
        .unwrap();
    assert_eq!((fetched.bytes, fetched.network_bytes), (3 * MIB + 300, 0));
}
