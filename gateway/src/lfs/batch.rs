//! `objects/batch`: where each object is to be sent to, or can be had from.

use std::collections::{HashMap, HashSet};

use axum::extract::Request;
use axum::response::Response;
use cairn_node::permission::Access;
use cairn_node::repos::{Reach, Repo};
use cairn_protocol::hash::{GitOid, Sha256};
use cairn_protocol::limits::FETCH_BYTES_MAX;
use cairn_protocol::name::RepoKind;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{LINKS, media};
use crate::auth::Client;
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
/// Parts of all objects of one request; more are answered 413.
const PARTS_MAX: u64 = 20_000;
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
    client: Client,
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
    let asked = Asked::new(&parts.uri, &parts.headers, config)?;
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
            let repo = repo::named(gateway, &client, kind, &id)?;
            answer(gateway, &client, &asked, &repo, &wanted)
        })
        .await
}

fn answer(
    gateway: &Gateway,
    client: &Client,
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
        client.must(gateway, Access::Write, repo)?;
    }
    let mut objects: Vec<Value> = Vec::with_capacity(wanted.objects.len());
    let named = |object: &Object| {
        object
            .oid
            .parse::<Sha256>()
            .map_err(|_| ApiError::unprocessable(format!("{:?} is not 64 hex digits", object.oid)))
    };
    let way = Way::of(wanted);
    if is_upload {
        let taken = wanted
            .objects
            .iter()
            .filter(|object| object.size <= FETCH_BYTES_MAX);
        if taken.map(|object| way.parts_of(object.size)).sum::<u64>() > PARTS_MAX {
            return Err(ApiError::too_large(format!(
                "The objects have more than {PARTS_MAX} parts of {PART_BYTES} bytes: ask for fewer at a time"
            )));
        }
        let mut reach = Reach::new(repo);
        for object in &wanted.objects {
            let (sha256, size) = (named(object)?, object.size);
            let shown = upload(gateway, client, asked, &mut reach, &sha256, size, way)?;
            objects.push(shown);
        }
    } else {
        let all = wanted.objects.iter().map(named);
        let found = places(repo, all.collect::<Result<_, _>>()?)?;
        for object in &wanted.objects {
            objects.push(download(asked, repo, &found, &named(object)?, object.size));
        }
    }
    // What is here already huggingface_hub would send anew by Xet.
    let is_lacking = |object: &Value| object.get("actions").is_some();
    let is_xet = is_upload && way == Way::Xet && objects.iter().any(is_lacking);
    let transfer = if is_xet { "xet" } else { "basic" };
    Ok(media(
        &json!({ "transfer": transfer, "objects": objects, "hash_algo": "sha256" }),
    ))
}

/// How objects are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Whole,
    /// Large ones in parts.
    Parts,
    Xet,
}

impl Way {
    /// Clients that know several leave it to the answer to choose.
    fn of(wanted: &Batch) -> Self {
        let knows = |way: &str| wanted.transfers.iter().any(|name| name == way);
        // @huggingface/hub, which alone says `sha_256`, cuts files into other chunks than all others: what it
        // sent could be had by Xet from this node alone.
        if knows("xet") && wanted.hash_algo.as_deref() != Some("sha_256") {
            Self::Xet
        } else if knows("multipart") {
            Self::Parts
        } else {
            Self::Whole
        }
    }

    /// In how many parts a file is sent: 0 for one that is sent whole.
    fn parts_of(self, size: u64) -> u64 {
        if self == Self::Parts && size >= MULTIPART_BYTES_MIN {
            size.div_ceil(PART_BYTES)
        } else {
            0
        }
    }
}

fn upload(
    gateway: &Gateway,
    client: &Client,
    asked: &Asked,
    reach: &mut Reach<'_>,
    sha256: &Sha256,
    size: u64,
    way: Way,
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
    let account = client.caller()?.account;
    let known = node.keep_uploaded(&account, &client.who, reach, sha256)?;
    if known.is_some_and(|stored| stored.size == size) {
        return Ok(shown);
    }
    if way == Way::Xet {
        let (kind, name) = (reach.repo().kind().plural(), reach.repo().shown_name());
        let token = format!("/api/{kind}/{name}/xet-write-token/main");
        shown["actions"] = json!({ "upload": { "href": asked.absolute(&token) } });
        return Ok(shown);
    }
    let link = |deed: Deed, part: u32| {
        let right = Right {
            deed,
            object: *sha256.as_bytes(),
            size,
            part,
            repository: reach.repo().id(),
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
    let parts = way.parts_of(size);
    if parts > 0 {
        let count = u32::try_from(parts).map_err(ApiError::internal)?;
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

/// Where each content stands in a repository: a commit that a ref leads to, and a path of it.
type Places = HashMap<Sha256, (GitOid, String)>;

/// Looks for contents in one walk.
fn places(repo: &Repo, mut wanted: HashSet<Sha256>) -> Result<Places, ApiError> {
    let mut found = Places::new();
    repo.each_file(&mut |commit, path, file| {
        if wanted.remove(&file.sha256) {
            found.insert(file.sha256, (*commit, path.to_owned()));
        }
        !wanted.is_empty()
    })?;
    Ok(found)
}

fn download(asked: &Asked, repo: &Repo, found: &Places, sha256: &Sha256, size: u64) -> Value {
    let Some((commit, path)) = found.get(sha256) else {
        return json!({
            "oid": sha256.to_hex(), "size": size,
            "error": { "code": 404, "message": "This repository has no such object" },
        });
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
    json!({
        "oid": sha256.to_hex(), "size": size,
        "actions": { "download": { "href": asked.absolute(&href) } },
    })
}
