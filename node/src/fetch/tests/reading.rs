//! Files come whole, in ranges, once for all readers, and from where they were left.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_file_comes_whole_whatever_its_size() {
    let (source, sink) = (peer(1).await, peer(2).await);
    sink.meet(&source).await;
    for len in [0, 1, 4096, 65_536, MIB, MIB + 1, 5 * MIB, 20 * MIB + 12_345] {
        let bytes = noise(len, 1);
        let claim = source.add(&bytes);
        let arriving = sink.fetcher.fetch(claim.clone());
        let digests = finished(&arriving).await.unwrap();
        assert_eq!((digests.sha256, digests.size), (claim.sha256, len));
        sink.holds(&claim, &bytes);
        assert_eq!(read(&arriving, 0, len).await.unwrap(), bytes);
        assert_eq!(sink.store.partials(), []);
        // Once more: it is there.
        let taken = sink.taken();
        finished(&sink.fetcher.fetch(claim)).await.unwrap();
        assert_eq!(sink.taken(), taken);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_readers_cause_one_transfer() {
    let (source, sink) = (slow(1, Some(40 * MIB)).await, peer(2).await);
    sink.meet(&source).await;
    let bytes = noise(20 * MIB + 5, 2);
    let claim = source.add(&bytes);
    let readers: Vec<_> = (0..10)
        .map(|_| {
            let arriving = sink.fetcher.fetch(claim.clone());
            tokio::spawn(async move {
                let whole = async { finished(&arriving).await.unwrap() };
                let (bytes, _) = tokio::join!(read(&arriving, 0, 20 * MIB + 5), whole);
                bytes.unwrap()
            })
        })
        .collect();
    for reader in readers {
        assert!(reader.await.unwrap() == bytes);
    }
    assert_eq!(sink.taken(), bytes.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_file_comes_first_and_alone_if_only_that_is_read() {
    let (source, sink) = (slow(1, Some(8 * MIB)).await, peer(2).await);
    sink.meet(&source).await;
    let len = 64 * MIB + 77;
    let bytes = noise(len, 3);
    let claim = source.add(&bytes);
    let arriving = sink.fetcher.fetch(claim.clone());
    let footer = read(&arriving, len - 70_000, len).await.unwrap();
    assert!(footer == bytes[bytes.len() - 70_000..]);
    let footer_bytes = MIB + 77;
    assert_eq!(sink.taken(), footer_bytes);
    drop(arriving);
    until("it stops", || sink.fetcher.inner.table.lock().is_empty()).await;
    assert_eq!(sink.taken(), footer_bytes);
    assert_eq!(sink.store.partials().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_overtakes_the_rest_of_a_file_that_is_fetched_whole() {
    let (source, sink) = (slow(1, Some(8 * MIB)).await, peer(2).await);
    sink.meet(&source).await;
    let len = 48 * MIB;
    let bytes = noise(len, 4);
    let claim = source.add(&bytes);
    let whole = sink.fetcher.fetch(claim.clone());
    let waiting = {
        let whole = whole.clone();
        tokio::spawn(async move { finished(&whole).await })
    };
    until("it began", || whole.progress().0 >= MIB).await;
    let reader = sink.fetcher.fetch(claim.clone());
    let footer = read(&reader, len - 10, len).await.unwrap();
    assert!(footer == bytes[bytes.len() - 10..]);
    assert!(
        whole.progress().0 < 40 * MIB,
        "the range waited for the file"
    );
    let shown = sink.fetcher.transfers();
    assert_eq!((shown.len(), shown[0].size), (1, len));
    assert!(shown[0].rate > 0 && shown[0].peers.len() == 1, "{shown:?}");
    waiting.await.unwrap().unwrap();
    sink.holds(&claim, &bytes);
    assert_eq!(sink.taken(), len);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_that_the_disk_changed_is_fetched_again_for_its_reader() {
    let (source, folder) = (peer(1).await, Arc::new(tempfile::tempdir().unwrap()));
    let bytes = noise(6 * MIB, 8);
    let claim = source.add(&bytes);
    // An earlier process fetched the first three pieces; the disk changed one of them since.
    let store = open_store(folder.path());
    let list = Arc::clone(source.store.pieces(&claim.blake3).unwrap().list());
    let partial = store.partial(&claim.blake3, &list).unwrap();
    for index in 0..3 {
        let piece = source.store.pieces(&claim.blake3).unwrap().read(index);
        partial.write(index, &[piece.unwrap()]).unwrap();
    }
    partial.sync().unwrap();
    drop((partial, store));
    let path = folder.path().join("partial").join(claim.blake3.to_hex());
    let mut rotten = std::fs::read(&path).unwrap();
    let at = usize::try_from(MIB).unwrap();
    rotten[at + 5] ^= 1;
    std::fs::write(&path, rotten).unwrap();
    let store = open_store(folder.path());
    let sink = on(2, None, folder, store).await;
    sink.meet(&source).await;
    let arriving = sink.fetcher.fetch(claim.clone());
    let part = read(&arriving, MIB, MIB + 100).await.unwrap();
    assert!(part == bytes[at..at + 100]);
    assert_eq!(sink.taken(), MIB, "that piece alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_is_not_fetched_again() {
    let (source, sink) = (slow(1, Some(20 * MIB)).await, peer(2).await);
    sink.meet(&source).await;
    let bytes = noise(24 * MIB, 5);
    let claim = source.add(&bytes);
    let arriving = sink.fetcher.fetch(claim.clone());
    let waiting = {
        let arriving = arriving.clone();
        tokio::spawn(async move { arriving.finished().await })
    };
    until("half is here", || arriving.progress().0 >= 12 * MIB).await;
    waiting.abort();
    drop(waiting.await);
    drop(arriving);
    until("it stops", || sink.fetcher.inner.table.lock().is_empty()).await;
    let (_, size, kept) = sink.store.partials()[0];
    assert_eq!(size, 24 * MIB);
    assert!(kept >= 12 * MIB);
    let before = sink.taken();
    let arriving = sink.fetcher.fetch(claim.clone());
    finished(&arriving).await.unwrap();
    sink.holds(&claim, &bytes);
    assert_eq!(arriving.progress().1, 24 * MIB - kept);
    assert_eq!(sink.taken() - before, 24 * MIB - kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_providers_share_a_file() {
    let (one, two, sink) = (
        slow(1, Some(6 * MIB)).await,
        slow(3, Some(6 * MIB)).await,
        peer(2).await,
    );
    sink.meet(&one).await;
    sink.meet(&two).await;
    let bytes = noise(24 * MIB, 6);
    let claim = one.add(&bytes);
    two.add(&bytes);
    finished(&sink.fetcher.fetch(claim.clone())).await.unwrap();
    sink.holds(&claim, &bytes);
    for (peer, _, taken) in sink.blobs.traffic() {
        assert!(taken >= 6 * MIB, "{peer} sent {taken}");
    }
    assert!(sink.taken() <= 28 * MIB, "{} bytes came", sink.taken());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_fetches_passes_on_what_it_has() {
    let (source, middle, sink) = (slow(1, Some(6 * MIB)).await, peer(3).await, peer(2).await);
    middle.meet(&source).await;
    sink.meet(&middle).await;
    let bytes = noise(16 * MIB, 7);
    let claim = source.add(&bytes);
    let first = middle.fetcher.fetch(claim.clone());
    let last = sink.fetcher.fetch(claim.clone());
    let (first, last) = tokio::join!(finished(&first), finished(&last));
    first.unwrap();
    last.unwrap();
    sink.holds(&claim, &bytes);
}
