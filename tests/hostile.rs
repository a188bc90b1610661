//! Peers that lie, stall, flood and forge, against the real binary: refused, said once, dropped where they
//! lied, and nothing wrong is stored or served.

#[cfg(test)]
mod hostile {
    mod blobs;
    mod forge;
    mod node;
    mod peer;

    mod fetching;
    mod metadata;
    mod spreading;
    mod stored;
}
