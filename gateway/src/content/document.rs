//! One file at one revision, ready to be sent: headers made, content in memory or open.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, RANGE, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use cairn_node::repos::FileEntry;
use cairn_node::store::{Content, FlatFile, Reading};
use cairn_protocol::hash::{GitOid, RepositoryId};
use cairn_protocol::xet::XetHash;

use super::headers;
use crate::error::{ApiError, REPO_COMMIT, ascii};
use crate::range::{self, Selection};
use crate::sendfile::FileBytes;
use crate::url::Pairs;

/// The entity tag of the content itself, on every hop.
const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
/// The size of the content itself, on every hop.
const LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");

/// What xet calls the content.
pub(super) const XET_HASH: HeaderName = HeaderName::from_static("x-xet-hash");

/// Age at which an open file is asked of the node again, which may have reasons not to give it.
const OPEN_AGE_MAX: Duration = Duration::from_mins(10);
/// What an open file weighs in the cache: descriptors and mappings are few, bytes of memory are many.
const OPEN_FILE_WEIGHT: u64 = 64 << 10;
/// What headers and bookkeeping weigh.
const DOCUMENT_WEIGHT: u64 = 2 << 10;

/// What the repository says of a file.
pub(super) struct Facts<'a> {
    pub(super) commit: GitOid,
    pub(super) path: &'a str,
    /// Git's blob: the file, or its LFS pointer.
    pub(super) oid: GitOid,
    pub(super) file: &'a FileEntry,
    /// What xet calls the file, where it can be had that way, too.
    pub(super) xet: Option<XetHash>,
    /// The repository that this is a download of; none where a file is only looked at (`raw`).
    pub(super) counts_for: Option<RepositoryId>,
}

impl Facts<'_> {
    /// The hub's rule: an LFS file goes by its SHA-256, a regular one by its git oid.
    fn etag(&self) -> String {
        match self.file.pointer_size {
            Some(_) => self.file.sha256.to_hex(),
            None => self.oid.to_hex(),
        }
    }
}

/// An answer without what depends on the request, and without its bytes.
#[derive(Debug)]
pub(super) struct Face {
    headers: HeaderMap,
    /// Quoted.
    etag: String,
    /// `Content-Disposition` for `?download=true`.
    attachment: HeaderValue,
    size: u64,
    counts_for: Option<RepositoryId>,
}

/// What of a file an answer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) range: Range<u64>,
    /// Whether the request was for all of the file, or for all from an offset on.
    pub(super) is_open: bool,
}

/// An answer without what depends on the request.
#[derive(Debug)]
pub(crate) struct Document {
    face: Face,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Memory(Bytes),
    File(OpenFile),
}

/// A mapped file, and how it looked when the node gave it.
#[derive(Debug)]
struct OpenFile {
    bytes: FileBytes,
    flat: FlatFile,
    stamp: Stamp,
    opened: Instant,
}

/// A part of a file that is on its way to a client.
struct Read {
    bytes: Bytes,
    _reading: Reading,
}

impl AsRef<[u8]> for Read {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Changes when somebody writes to a file, or the node removes it.
#[derive(Debug, PartialEq, Eq)]
struct Stamp([i128; 5]);

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let stat = rustix::fs::fstat(file)?;
        Ok(Self([
            stat.st_size.into(),
            stat.st_mtime.into(),
            stat.st_mtime_nsec.into(),
            stat.st_ctime.into(),
            stat.st_ctime_nsec.into(),
        ]))
    }
}

impl Document {
    /// The content of a file.
    pub(super) fn file(facts: &Facts<'_>, content: Content) -> Result<Self, ApiError> {
        let source = match content {
            Content::Small(bytes) => Source::Memory(bytes),
            Content::Flat(flat) => {
                let stamp = Stamp::of(&flat.file).map_err(ApiError::internal)?;
                let bytes = FileBytes::new(Arc::clone(&flat.file), flat.size)
                    .map_err(ApiError::internal)?;
                Source::File(OpenFile {
                    bytes,
                    flat,
                    stamp,
                    opened: Instant::now(),
                })
            }
        };
        let size = match &source {
            Source::Memory(bytes) => bytes.len() as u64,
            Source::File(open) => open.bytes.size(),
        };
        let mut face = Face::new(facts, &facts.etag(), size);
        if let Some(hash) = &facts.xet {
            let hash = ascii(&hash.to_string());
            face.headers.insert(XET_HASH, hash);
        }
        Ok(Self { face, source })
    }

    /// The pointer that git holds in place of an LFS file.
    pub(super) fn pointer(facts: &Facts<'_>, size: u64) -> Result<Self, ApiError> {
        let (sha256, content_size) = (facts.file.sha256, facts.file.size);
        let text = format!(
            "version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {content_size}\n"
        );
        if text.len() as u64 != size {
            return Err(ApiError::not_canonical_pointer());
        }
        let face = Face::new(facts, &facts.oid.to_hex(), size);
        let source = Source::Memory(text.into());
        Ok(Self { face, source })
    }

    /// Bytes of memory, or what stands for them.
    pub(super) fn weight(&self) -> u64 {
        DOCUMENT_WEIGHT
            + match &self.source {
                Source::Memory(bytes) => bytes.len() as u64,
                Source::File(_) => OPEN_FILE_WEIGHT,
            }
    }

    /// Whether the file is as the node gave it, not long ago.
    pub(super) fn is_fresh(&self) -> bool {
        match &self.source {
            Source::Memory(_) => true,
            Source::File(open) => {
                open.opened.elapsed() < OPEN_AGE_MAX
                    && Stamp::of(&open.flat.file).is_ok_and(|stamp| stamp == open.stamp)
            }
        }
    }

    /// The repository that whoever takes this downloads.
    pub(super) fn counts_for(&self) -> Option<RepositoryId> {
        self.face.counts_for()
    }

    /// Answers a GET or HEAD.
    pub(super) fn answer(&self, request: &Request) -> Result<Response, ApiError> {
        let (mut response, part) = self.face.head(request)?;
        if let Some(part) = part {
            *response.body_mut() = Body::from(self.bytes(part.range));
        }
        Ok(response)
    }

    fn bytes(&self, part: Range<u64>) -> Bytes {
        match &self.source {
            Source::Memory(bytes) => {
                let index = |at| usize::try_from(at).expect("invariant: within bytes in memory");
                bytes.slice(index(part.start)..index(part.end))
            }
            Source::File(open) => Bytes::from_owner(Read {
                bytes: open.bytes.slice(part),
                _reading: open.flat.reading(),
            }),
        }
    }
}

impl Face {
    /// A file that the repository tells of, wherever its content is.
    pub(super) fn of(facts: &Facts<'_>) -> Self {
        Self::new(facts, &facts.etag(), facts.file.size)
    }

    fn new(facts: &Facts<'_>, etag: &str, size: u64) -> Self {
        let etag = format!("\"{etag}\"");
        let mut headers = HeaderMap::with_capacity(16);
        for (name, value) in [
            (CONTENT_TYPE, headers::content_type(facts.path)),
            (ETAG, ascii(&etag)),
            (LINKED_ETAG, ascii(&etag)),
            (LINKED_SIZE, size.into()),
            (REPO_COMMIT, ascii(&facts.commit.to_hex())),
            (
                CONTENT_DISPOSITION,
                headers::disposition("inline", facts.path),
            ),
            (ACCEPT_RANGES, HeaderValue::from_static("bytes")),
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (VARY, HeaderValue::from_static("Origin")),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (
                CONTENT_SECURITY_POLICY,
                HeaderValue::from_static("default-src 'none'; sandbox"),
            ),
        ] {
            headers.insert(name, value);
        }
        Self {
            headers,
            etag,
            attachment: headers::disposition("attachment", facts.path),
            size,
            counts_for: facts.counts_for,
        }
    }

    /// The repository that whoever takes this downloads.
    pub(super) fn counts_for(&self) -> Option<RepositoryId> {
        self.counts_for
    }

    /// Status and headers of an answer to a GET or HEAD, and which bytes follow, where any may.
    pub(super) fn head(&self, request: &Request) -> Result<(Response, Option<Part>), ApiError> {
        let asked = request.headers();
        if headers::is_unchanged(asked, &self.etag) {
            return Ok((self.unchanged(), None));
        }
        let is_head = request.method() == Method::HEAD;
        let range = asked
            .get(RANGE)
            .filter(|_| !is_head && headers::is_range_valid(asked, &self.etag));
        let selection = match range {
            Some(range) => range::select(range.as_bytes(), self.size),
            None => Selection::Whole,
        };
        let is_open = matches!(selection, Selection::Whole | Selection::Rest(_));
        let (status, part, content_range) = match selection {
            Selection::Whole => (StatusCode::OK, 0..self.size, None),
            Selection::Part(part) | Selection::Rest(part) => {
                let (first, last) = (part.start, part.end - 1);
                let text = format!("bytes {first}-{last}/{}", self.size);
                (StatusCode::PARTIAL_CONTENT, part, Some(text))
            }
            // Clients learn a size by asking for the first byte, and an empty file has none.
            Selection::Unsatisfiable if self.size == 0 => {
                (StatusCode::OK, 0..0, Some("bytes */0".to_owned()))
            }
            Selection::Unsatisfiable => return Err(ApiError::range_not_satisfiable(self.size)),
        };
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_LENGTH, (part.end - part.start).into());
        if let Some(text) = content_range {
            headers.insert(CONTENT_RANGE, ascii(&text));
        }
        if let Some(query) = request.uri().query()
            && Pairs::parse(query.as_bytes())?.flag("download")
        {
            headers.insert(CONTENT_DISPOSITION, self.attachment.clone());
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        let part = (!is_head).then_some(Part {
            is_open: is_open || part == (0..self.size),
            range: part,
        });
        Ok((response, part))
    }

    fn unchanged(&self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        for name in [
            ETAG,
            LINKED_ETAG,
            LINKED_SIZE,
            REPO_COMMIT,
            CACHE_CONTROL,
            VARY,
        ] {
            if let Some(value) = self.headers.get(&name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use axum::response::IntoResponse as _;
    use cairn_protocol::hash::Sha256;
    use http_body_util::BodyExt as _;

    use super::*;

    /// Bytes of the flat file: enough to leave by `sendfile`, and not only zeros.
    fn flat_bytes() -> Vec<u8> {
        (0..100_000_u32).map(|n| (n % 251) as u8).collect()
    }

    fn flat() -> (File, Content) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&flat_bytes()).unwrap();
        let (writer, reader) = (file.reopen().unwrap(), file.into_file());
        let flat = FlatFile::new(Arc::new(reader), "flat".into(), 100_000);
        (writer, Content::Flat(flat))
    }

    fn entry(size: u64, pointer_size: Option<u64>) -> FileEntry {
        FileEntry {
            size,
            sha256: Sha256::from_bytes([0xab; 32]),
            blake3: None,
            pointer_size,
            xet: None,
            executable: false,
        }
    }

    fn facts(file: &FileEntry) -> Facts<'_> {
        Facts {
            commit: GitOid::from_bytes([0xcc; 20]),
            path: "dir/file.txt",
            oid: GitOid::from_bytes([0x11; 20]),
            file,
            xet: None,
            counts_for: None,
        }
    }

    fn document(content: Content) -> Document {
        let file = entry(content.size(), None);
        Document::file(&facts(&file), content).unwrap()
    }

    fn small(text: &'static str) -> Document {
        document(Content::Small(text.into()))
    }

    /// Status, a header, and the body of an answer.
    async fn ask(
        document: &Document,
        method: Method,
        asked: &[(HeaderName, &str)],
        shown: HeaderName,
    ) -> (u16, Option<String>, Vec<u8>) {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        for (name, value) in asked {
            let value = value.parse().unwrap();
            request.headers_mut().insert(name.clone(), value);
        }
        let response = match document.answer(&request) {
            Ok(response) => response,
            Err(error) => error.into_response(),
        };
        let value = response.headers().get(shown);
        let value = value.map(|value| value.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap();
        (status, value, body.to_bytes().to_vec())
    }

    #[tokio::test]
    async fn parts_are_answered_from_memory_and_from_a_file_alike() {
        let (_writer, content) = flat();
        let whole = flat_bytes();
        let memory = Content::Small(whole.clone().into());
        for document in [document(memory), document(content)] {
            let get = async |range: &str| {
                ask(&document, Method::GET, &[(RANGE, range)], CONTENT_RANGE).await
            };
            let (status, range, body) = get("bytes=10-49999").await;
            assert_eq!(status, 206);
            assert_eq!(range.as_deref(), Some("bytes 10-49999/100000"));
            assert!(body == whole[10..50_000]);
            let (status, range, body) = get("bytes=99990-200000").await;
            assert_eq!(status, 206);
            assert_eq!(range.as_deref(), Some("bytes 99990-99999/100000"));
            assert!(body == whole[99_990..]);
            let (status, range, _) = get("bytes=100000-").await;
            assert_eq!(status, 416);
            assert_eq!(range.as_deref(), Some("bytes */100000"));
            let (status, range, body) = get("bytes=0-1,5-6").await;
            assert_eq!((status, range), (200, None));
            assert!(body == whole);
        }
    }

    #[tokio::test]
    async fn heads_tell_the_length_and_send_nothing() {
        let (_writer, content) = flat();
        let document = document(content);
        let range = [(RANGE, "bytes=0-9")];
        let (status, length, body) = ask(&document, Method::HEAD, &range, CONTENT_LENGTH).await;
        assert_eq!((status, length.as_deref()), (200, Some("100000")));
        assert!(body.is_empty());
    }

    #[tokio::test]
    async fn an_empty_file_tells_its_size_to_who_asks_for_a_byte() {
        let asked = [(RANGE, "bytes=0-0")];
        let (status, range, body) = ask(&small(""), Method::GET, &asked, CONTENT_RANGE).await;
        assert_eq!((status, range.as_deref()), (200, Some("bytes */0")));
        assert!(body.is_empty());
    }

    #[tokio::test]
    async fn conditions_decide_between_nothing_a_part_and_all() {
        use axum::http::header::{IF_NONE_MATCH, IF_RANGE};
        let document = small("0123456789");
        let etag = format!("\"{}\"", "11".repeat(20));
        let other = format!("\"{}\"", "22".repeat(20));
        let ask = async |asked: &[(HeaderName, &str)]| {
            let (status, shown, body) = ask(&document, Method::GET, asked, ETAG).await;
            assert_eq!(shown.as_deref(), Some(etag.as_str()));
            (status, body)
        };
        assert_eq!(ask(&[(IF_NONE_MATCH, &etag)]).await, (304, Vec::new()));
        assert_eq!(ask(&[(IF_NONE_MATCH, &other)]).await.0, 200);
        let range = (RANGE, "bytes=2-3");
        let part = ask(&[range.clone(), (IF_RANGE, &etag)]).await;
        assert_eq!(part, (206, b"23".to_vec()));
        let all = ask(&[range, (IF_RANGE, &other)]).await;
        assert_eq!(all, (200, b"0123456789".to_vec()));
    }

    #[tokio::test]
    async fn lfs_files_go_by_sha256_and_their_pointers_by_git_oid() {
        let file = entry(10, Some(127));
        let content = Content::Small("0123456789".into());
        let document = Document::file(&facts(&file), content).unwrap();
        let (_, etag, _) = ask(&document, Method::GET, &[], ETAG).await;
        assert_eq!(etag, Some(format!("\"{}\"", "ab".repeat(32))));

        let pointer = Document::pointer(&facts(&file), 127).unwrap();
        let (_, etag, body) = ask(&pointer, Method::GET, &[], LINKED_ETAG).await;
        assert_eq!(etag, Some(format!("\"{}\"", "11".repeat(20))));
        let expected = format!(
            "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 10\n",
            "ab".repeat(32)
        );
        assert_eq!(body, expected.as_bytes());
        assert!(Document::pointer(&facts(&file), 130).is_err());
    }

    #[tokio::test]
    async fn downloads_are_attachments() {
        let document = small("x");
        for (uri, kind) in [
            ("/a?download=true", "attachment"),
            ("/a?download=false", "inline"),
            ("/a?noContentDisposition=1", "inline"),
        ] {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = uri.parse().unwrap();
            let response = document.answer(&request).unwrap();
            let shown = response.headers()[CONTENT_DISPOSITION].to_str().unwrap();
            assert!(shown.starts_with(kind), "{uri}: {shown}");
        }
    }

    #[test]
    fn a_file_that_somebody_touched_is_not_fresh() {
        let (mut writer, content) = flat();
        let document = document(content);
        assert!(document.is_fresh());
        writer.write_all(b"x").unwrap();
        // Times may be coarse: the size changes too.
        writer.set_len(99_999).unwrap();
        assert!(!document.is_fresh());
    }
}
