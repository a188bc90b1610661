//! Ours with ours.

use cairn_protocol::piece::piece_count;
use cairn_protocol::transfer::Held;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn files_of_every_size_move_between_two_nodes() {
    let (ours, theirs) = (Node::new(1).await, Node::new(2).await);
    ours.meet(&theirs);
    for (seed, size) in SIZES.iter().enumerate() {
        let bytes = content(*size, seed as u64);
        let hash = theirs.add(&bytes);
        let (root, expected) = list_of(&bytes);
        assert_eq!(root, hash);
        let held = ours.blobs.look_up(theirs.key, vec![hash]).await.unwrap();
        assert_eq!(held, [Held::Whole(*size as u64)], "{size}");
        let list = ours
            .blobs
            .list(theirs.key, hash, *size as u64)
            .await
            .unwrap();
        assert_eq!(list, *expected, "{size}");
        let list = Arc::new(list);
        let count = piece_count(*size as u64);
        let (came, ended) = ours.pieces(theirs.key, hash, &list, 0..count).await;
        ended.unwrap_or_else(|error| panic!("{size}: {error}"));
        assert!(came.iter().map(|piece| piece.index).eq(0..count), "{size}");
        assert!(joined(&came) == bytes, "{size}");
        // Any run of pieces by itself.
        for (from, to) in [
            (count - 1, count),
            (count / 2, count),
            (0, count / 2),
            (1, 2),
        ] {
            let (came, ended) = ours.pieces(theirs.key, hash, &list, from..to).await;
            ended.unwrap_or_else(|error| panic!("{size} {from}..{to}: {error}"));
            let [from, to] = [from, to].map(|piece| ((piece as usize) << 20).min(*size));
            assert!(joined(&came) == bytes[from..to], "{size} {from}..{to}");
        }
    }
    let sent: u64 = theirs.blobs.traffic().iter().map(|(_, sent, _)| sent).sum();
    let taken = ours.blobs.traffic()[0].2;
    assert_eq!(ours.blobs.traffic()[0].0, theirs.key);
    assert!(sent > taken && taken > 17 << 20, "{sent} {taken}");
}
