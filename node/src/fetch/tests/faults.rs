//! Peers that vanish, lie or stall, content that rots, a disk that is full.

use std::sync::atomic::Ordering;

use super::disk::Disk;
use super::*;
use crate::files::Files;
use crate::store::StoreError;

#[tokio::test(flavor = "multi_thread")]
async fn another_goes_on_where_one_vanished() {
    let (one, two, sink) = (slow(1, Some(8 * MIB)).await, peer(3).await, peer(2).await);
    sink.meet(&one).await;
    let bytes = noise(24 * MIB, 1);
    let claim = one.add(&bytes);
    two.add(&bytes);
    let arriving = sink.fetcher.fetch(claim.clone());
    let waiting = {
        let arriving = arriving.clone();
        tokio::spawn(async move { finished(&arriving).await })
    };
    until("it began", || arriving.progress().0 >= 4 * MIB).await;
    one.vanish();
    sink.meet(&two).await;
    waiting.await.unwrap().unwrap();
    sink.holds(&claim, &bytes);
    assert!(sink.taken() <= 26 * MIB, "{} bytes came", sink.taken());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_vanish_readers_hear_it_and_a_later_fetch_goes_on() {
    let (one, two, sink) = (slow(1, Some(8 * MIB)).await, peer(3).await, peer(2).await);
    sink.meet(&one).await;
    let bytes = noise(24 * MIB, 2);
    let claim = one.add(&bytes);
    two.add(&bytes);
    let arriving = sink.fetcher.fetch(claim.clone());
    let waiting = {
        let arriving = arriving.clone();
        tokio::spawn(async move { finished(&arriving).await })
    };
    until("it began", || arriving.progress().0 >= 4 * MIB).await;
    one.vanish();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error, FetchError::NoProvider { .. }), "{error}");
    let error = read(&arriving, 20 * MIB, 21 * MIB).await.unwrap_err();
    assert!(matches!(error, FetchError::NoProvider { .. }), "{error}");
    let (_, _, kept) = sink.store.partials()[0];
    assert!(kept >= 4 * MIB);
    sink.meet(&two).await;
    let arriving = sink.fetcher.fetch(claim.clone());
    finished(&arriving).await.unwrap();
    sink.holds(&claim, &bytes);
    assert_eq!(arriving.progress().1, 24 * MIB - kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_peer_or_without_one_that_has_it_there_is_no_provider() {
    let sink = peer(2).await;
    let source = peer(1).await;
    let large = wanted(&digests(&noise(2 * MIB, 3)));
    let small = wanted(&digests(&noise(10, 3)));
    for claim in [&large, &small] {
        let error = finished(&sink.fetcher.fetch(claim.clone()))
            .await
            .unwrap_err();
        assert!(matches!(error, FetchError::NoProvider { .. }), "{error}");
    }
    sink.meet(&source).await;
    let (one, two) = (sink.fetcher.fetch(large), sink.fetcher.fetch(small));
    let (one, two) = tokio::join!(finished(&one), finished(&two));
    for error in [one.unwrap_err(), two.unwrap_err()] {
        assert!(matches!(error, FetchError::NoProvider { .. }), "{error}");
    }
    until("it is over", || sink.fetcher.inner.table.lock().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_comes_late_is_asked() {
    let (source, sink) = (peer(1).await, peer(2).await);
    let other = peer(3).await;
    sink.meet(&other).await;
    let (large, small) = (noise(3 * MIB, 4), noise(100, 4));
    let claims = [source.add(&large), source.add(&small)];
    let arriving = claims.clone().map(|claim| sink.fetcher.fetch(claim));
    sink.meet(&source).await;
    for arriving in &arriving {
        finished(arriving).await.unwrap();
    }
    sink.holds(&claims[0], &large);
    sink.holds(&claims[1], &small);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_content_is_healed_from_a_peer() {
    let (source, sink) = (peer(1).await, peer(2).await);
    sink.meet(&source).await;
    let bytes = noise(5 * MIB, 5);
    let claim = source.add(&bytes);
    sink.add(&bytes);
    let Content::Flat(flat) = sink.store.content(&claim.blake3).unwrap() else {
        panic!("a flat file");
    };
    let mut rotten = bytes.clone();
    rotten[3_000_000] ^= 1;
    std::fs::write(&flat.path, &rotten).unwrap();
    let error = sink.store.content(&claim.blake3).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    until("healed", || sink.store.content(&claim.blake3).is_ok()).await;
    sink.holds(&claim, &bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_the_node_goes_on() {
    let disk = Arc::new(Disk {
        free: (16 * MIB).into(),
    });
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let options = crate::store::StoreOptions::default();
    let files: Arc<dyn Files> = disk.clone();
    let store = Store::open(files, folder.path(), &options, &mut |_| {}).unwrap();
    let (source, sink) = (peer(1).await, on(2, None, folder, store).await);
    sink.meet(&source).await;
    let (large, small) = (noise(12 * MIB, 6), noise(100, 6));
    let claims = [source.add(&large), source.add(&small)];
    let error = finished(&sink.fetcher.fetch(claims[0].clone()))
        .await
        .unwrap_err();
    let FetchError::Store(error) = error else {
        panic!("{error}");
    };
    assert!(matches!(*error, StoreError::Full { .. }), "{error}");
    finished(&sink.fetcher.fetch(claims[1].clone()))
        .await
        .unwrap();
    sink.holds(&claims[1], &small);
    disk.free.store(1 << 40, Ordering::Release);
    finished(&sink.fetcher.fetch(claims[0].clone()))
        .await
        .unwrap();
    sink.holds(&claims[0], &large);
}

/// Digests of bytes that nobody has.
fn digests(bytes: &[u8]) -> Digests {
    let folder = tempfile::tempdir().unwrap();
    let store = open_store(folder.path());
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    store
        .import(&mut &file, bytes.len() as u64, true, &mut |_| {})
        .unwrap()
}
