//! Messages about blobs, fed with bytes of any origin. See `formats.rs`.

use cairn_protocol::transfer::{Answer, Request};

/// Every target by name; its seeds are in `seeds/NAME`.
#[allow(clippy::type_complexity, reason = "a list of names and functions")]
pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("transfer_request", transfer_request),
    ("transfer_answer", transfer_answer),
];

pub fn transfer_request(bytes: &[u8]) {
    if let Ok(request) = Request::decode(bytes) {
        assert_eq!(request.encode(), bytes);
    }
}

pub fn transfer_answer(bytes: &[u8]) {
    if let Ok(answer) = Answer::decode(bytes) {
        assert_eq!(answer.encode(), bytes);
    }
}
