//! `objects/batch`: where each object is to be sent to, or can be had from.

use axum::extract::Request;
use axum::response::Response;
use cairn_node::permission::Access;
use cairn_node::repos::Repo;
use cairn_protocol::hash::Sha256;
use cairn_protocol::limits::FETCH_BYTES_MAX;
use cairn_protocol::name::RepoKind;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{LINKS, media};
use crate::auth::Asker;
use crate::body;
use crate::dates::now_s;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::publish::parse;
use crate::repo;
use crate::right::{Deed, RIGHT_S, Right};
use crate::url::{Asked, Segment};

/// Objects of one request; more are answered 413.
const OBJECTS_MAX: usize = 1_000;
/// Bytes of a part of a multipart upload.
pub(super) const PART_BYTES: u64 = 64 << 20;
/// Bytes from which on an upload has parts: what it can't resume is sent again.
const MULTIPART_BYTES_MIN: u64 = 256 << 20;

#[derive(Debug, Deserialize)]
struct Batch {
    operation: String,
    #[serde(default)]
    transfers: Vec<String>,
    objects: Vec<Object>,
    #[serde(default)]
    hash_algo: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Object {
    oid: String,
    size: u64,
}

pub(super) async fn serve(
    gateway: &Gateway,
    asker: Asker,
    segments: &[Segment<'_>],
    request: Request,
) -> Result<Response, ApiError> {
    let (kind, id) = match segments {
        [first, rest @ ..] if first.text == "datasets" => (RepoKind::Dataset, rest),
        [first, rest @ ..] if first.text == "spaces" => (RepoKind::Space, rest),
        all => (RepoKind::Model, all),
    };
    let id: Vec<&str> = id.iter().map(|segment| segment.text.as_ref()).collect();
    let id = id.join("/");
    let (parts, bytes) = request.into_parts();
    let config = gateway.config();
    let asked = Asked::new(&parts.uri, &parts.headers, config.public_url.as_deref())?;
    let max = config.body_bytes_max;
    let bytes = body::read(&parts.headers, bytes, max, config).await?;
    gateway
        .blocking(move |gateway| {
            let wanted: Batch = parse(&bytes)?;
            if wanted.objects.len() > OBJECTS_MAX {
                return Err(ApiError::too_large(format!(
                    "More than {OBJECTS_MAX} objects: ask for some of them at a time"
                )));
            }
            let algo = wanted.hash_algo.as_deref().unwrap_or("sha256");
            if !matches!(algo, "sha256" | "sha_256") {
                return Err(ApiError::conflict(format!(
                    "Objects are named by their sha256, not {algo:?}"
                )));
            }
            let repo = repo::named(gateway, &asker, kind, &id)?;
            answer(gateway, &asker, &asked, &repo, &wanted)
        })
        .await
}

fn answer(
    gateway: &Gateway,
    asker: &Asker,
    asked: &Asked,
    repo: &Repo,
    wanted: &Batch,
) -> Result<Response, ApiError> {
    let is_upload = match wanted.operation.as_str() {
        "upload" => true,
        "download" => false,
        other => {
            return Err(ApiError::unprocessable(format!(
                "{other:?} is none of upload, download"
            )));
        }
    };
    if is_upload {
        asker.must(gateway, Access::Write, repo)?;
    }
    let may_multipart = wanted.transfers.iter().any(|name| name == "multipart");
    let mut objects: Vec<Value> = Vec::with_capacity(wanted.objects.len());
    for object in &wanted.objects {
        let sha256: Sha256 = object.oid.parse().map_err(|_| {
            ApiError::unprocessable(format!("{:?} is not 64 hex digits", object.oid))
        })?;
        let shown = if is_upload {
            upload(
                gateway,
                asker,
                asked,
                repo,
                &sha256,
                object.size,
                may_multipart,
            )?
        } else {
            download(asked, repo, &sha256, object.size)?
        };
        objects.push(shown);
    }
    Ok(media(
        &json!({ "transfer": "basic", "objects": objects, "hash_algo": "sha256" }),
    ))
}

fn upload(
    gateway: &Gateway,
    asker: &Asker,
    asked: &Asked,
    repo: &Repo,
    sha256: &Sha256,
    size: u64,
    may_multipart: bool,
) -> Result<Value, ApiError> {
    let mut shown = json!({ "oid": sha256.to_hex(), "size": size });
    if size > FETCH_BYTES_MAX {
        shown["error"] = json!({
            "code": 422,
            "message": format!("Files of more than {FETCH_BYTES_MAX} bytes are not taken"),
        });
        return Ok(shown);
    }
    let node = gateway.node();
    let known = node.uploaded(&asker.who, repo, sha256)?;
    if known.is_some_and(|stored| stored.size == size) {
        return Ok(shown);
    }
    let account = asker.caller()?.account;
    let link = |deed: Deed, part: u32| {
        let right = Right {
            deed,
            object: *sha256.as_bytes(),
            size,
            part,
            repository: repo.id(),
            account: Some(account),
            end: now_s() + RIGHT_S,
        };
        let place = match deed {
            Deed::PutPart => format!("/{part}"),
            Deed::Complete => "/complete".to_owned(),
            _ => String::new(),
        };
        asked.absolute(&format!(
            "{LINKS}/{}{place}{}",
            sha256.to_hex(),
            right.seal(node)
        ))
    };
    let mut action = json!({ "expires_in": RIGHT_S });
    if may_multipart && size >= MULTIPART_BYTES_MIN {
        let count = u32::try_from(size.div_ceil(PART_BYTES)).map_err(ApiError::internal)?;
        let mut header = Map::new();
        header.insert("chunk_size".to_owned(), PART_BYTES.to_string().into());
        for part in 1..=count {
            header.insert(format!("{part:05}"), link(Deed::PutPart, part).into());
        }
        action["href"] = link(Deed::Complete, 0).into();
        action["header"] = header.into();
    } else {
        action["href"] = link(Deed::Put, 0).into();
    }
    shown["actions"] = json!({ "upload": action });
    Ok(shown)
}

fn download(asked: &Asked, repo: &Repo, sha256: &Sha256, size: u64) -> Result<Value, ApiError> {
    let found = repo.find_content(|file| file.sha256 == *sha256)?;
    let Some((commit, path)) = found else {
        return Ok(json!({
            "oid": sha256.to_hex(), "size": size,
            "error": { "code": 404, "message": "This repository has no such object" },
        }));
    };
    let prefix = match repo.kind() {
        RepoKind::Model => String::new(),
        kind => format!("{}/", kind.plural()),
    };
    let path: Vec<String> = path.split('/').map(crate::url::quote).collect();
    let href = format!(
        "/{prefix}{}/resolve/{}/{}",
        repo.shown_name(),
        commit.to_hex(),
        path.join("/")
    );
    Ok(json!({
        "oid": sha256.to_hex(), "size": size,
        "actions": { "download": { "href": asked.absolute(&href) } },
    }))
}
