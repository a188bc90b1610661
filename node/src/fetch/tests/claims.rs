//! What a commit claims is believed only when the bytes bear it out.

use cairn_protocol::hash::Sha256;

use super::*;

fn digest_of(error: FetchError) -> &'static str {
    match error {
        FetchError::Disagrees { digest, .. } => digest,
        error => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_claim_is_refused_told_and_remembered() {
    let (source, sink) = (peer(1).await, peer(2).await);
    sink.meet(&source).await;
    let mut told = sink.fetcher.disagreements();
    for len in [100, 3 * MIB] {
        let honest = source.add(&noise(len, 1));
        let mut wrong = honest.clone();
        wrong.sha256 = Sha256::from_bytes([1; 32]);
        let error = finished(&sink.fetcher.fetch(wrong.clone()))
            .await
            .unwrap_err();
        assert_eq!(digest_of(error), "sha256");
        assert!(!sink.store.contains(&honest.blake3).unwrap());
        assert_eq!(sink.store.partials(), []);
        let heard = timeout(DEADLINE, told.recv()).await.unwrap().unwrap();
        assert_eq!((heard.wanted, heard.digest), (wrong.clone(), "sha256"));
        let taken = sink.taken();
        let error = finished(&sink.fetcher.fetch(wrong.clone()))
            .await
            .unwrap_err();
        assert_eq!(digest_of(error), "sha256");
        let error = sink.fetcher.fetch(wrong).read(0, 1).await.unwrap_err();
        assert_eq!(digest_of(error), "sha256");
        assert_eq!(
            sink.taken(),
            taken,
            "what is known to be wrong was fetched again"
        );
        finished(&sink.fetcher.fetch(honest)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_claim_spoils_nothing_for_an_honest_one() {
    let (source, sink) = (slow(1, Some(16 * MIB)).await, peer(2).await);
    sink.meet(&source).await;
    for len in [100, 3 * MIB] {
        let bytes = noise(len, 2);
        let honest = source.add(&bytes);
        let mut wrong = honest.clone();
        wrong.sha256 = Sha256::from_bytes([2; 32]);
        let taken = sink.taken();
        let both = [&wrong, &honest].map(|claim| sink.fetcher.fetch(claim.clone()));
        let (one, two) = tokio::join!(finished(&both[0]), finished(&both[1]));
        assert_eq!(digest_of(one.unwrap_err()), "sha256");
        two.unwrap();
        sink.holds(&honest, &bytes);
        assert_eq!(sink.taken() - taken, len, "fetched once");
        // Stored by now; a claim is judged all the same.
        wrong.sha256 = Sha256::from_bytes([3; 32]);
        let error = finished(&sink.fetcher.fetch(wrong.clone()))
            .await
            .unwrap_err();
        assert_eq!(digest_of(error), "sha256");
        wrong.sha256 = Sha256::from_bytes([4; 32]);
        let arriving = sink.fetcher.fetch(wrong);
        let error = read(&arriving, 0, 10).await.unwrap_err();
        assert_eq!(digest_of(error), "sha256", "nor is a part of it given");
        sink.holds(&honest, &bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_git_id_is_compared_where_one_is_claimed() {
    let (source, sink) = (peer(1).await, peer(2).await);
    sink.meet(&source).await;
    for len in [100, 2 * MIB] {
        let bytes = noise(len, 3);
        let honest = source.add(&bytes);
        let digests = source.store.digests(&honest.blake3).unwrap().unwrap();
        let other = source.add(&noise(len, 4));
        let other = source.store.digests(&other.blake3).unwrap().unwrap();
        let mut claim = honest.clone();
        claim.git = other.git;
        let error = finished(&sink.fetcher.fetch(claim.clone()))
            .await
            .unwrap_err();
        assert_eq!(digest_of(error), "git oid");
        // First without, then with: it is computed when it is asked for.
        finished(&sink.fetcher.fetch(honest.clone())).await.unwrap();
        claim.git = digests.git;
        let found = finished(&sink.fetcher.fetch(claim)).await.unwrap();
        assert_eq!(found, digests);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_size_is_proven_wrong() {
    let (source, sink) = (peer(1).await, peer(2).await);
    sink.meet(&source).await;
    for (len, claimed) in [
        (100, 99),
        (100, 5 * MIB),
        (3 * MIB, 3 * MIB - 1),
        (3 * MIB, 9 * MIB),
        (3 * MIB, 10),
    ] {
        let bytes = noise(len, 5);
        let honest = source.add(&bytes);
        let mut wrong = honest.clone();
        wrong.size = claimed;
        let error = finished(&sink.fetcher.fetch(wrong)).await.unwrap_err();
        assert_eq!(digest_of(error), "size", "{len} claimed to be {claimed}");
    }
    let sizes = sink.fetcher.fetch(Wanted {
        size: u64::MAX,
        ..source.add(b"x")
    });
    let error = finished(&sizes).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge { .. }), "{error}");
}
