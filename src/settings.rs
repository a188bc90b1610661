//! Settings: flag over environment over file over default, each with its origin.
//!
//! Read once and checked once; what the rest of the program sees is valid. `docs/cairn.toml` explains
//! every setting, and a test holds it to the defaults here.

mod layer;
mod quantity;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use cairn_protocol::name::{NamespaceName, check_segment};
use figment::Figment;
use figment::error::Kind;
use serde::{Deserialize, Serialize};

use self::layer::Layer;
use crate::cli::{Cli, Verb};
use crate::failure::Failure;

/// Name of the settings file in the data folder and in the configuration folder.
pub(crate) const FILE_NAME: &str = "cairn.toml";
/// Where the gateway listens: the digits that spell C-A-I-R-N, a port that nothing else is registered for.
const GATEWAY: &str = "127.0.0.1:22476";
/// Least memory for the views' cache.
const VIEW_CACHE_BYTES_MIN: u64 = 1 << 20;

/// Least rate that a limit may set; below it no transfer would make progress in time.
const RATE_MIN: u64 = 1 << 10;

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For programs, a JSON object a line.
    Json,
}

/// What the settings file may hold; `docs/cairn.toml` says what each means.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Values {
    pub(crate) gateway: SocketAddr,
    pub(crate) public_url: Option<String>,
    pub(crate) tls_certificate: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) listen: Vec<String>,
    pub(crate) peers: Vec<String>,
    pub(crate) mdns: bool,
    #[serde(default, deserialize_with = "quantity::optional")]
    pub(crate) cache_size: Option<u64>,
    #[serde(default, deserialize_with = "quantity::optional")]
    pub(crate) upload_rate: Option<u64>,
    #[serde(default, deserialize_with = "quantity::optional")]
    pub(crate) download_rate: Option<u64>,
    pub(crate) xet_downloads: bool,
    pub(crate) namespace_alias: String,
    pub(crate) author_name: Option<String>,
    pub(crate) author_email: Option<String>,
    pub(crate) view_cache_bytes: u64,
    pub(crate) log: String,
    pub(crate) log_format: LogFormat,
    pub(crate) aliases: BTreeMap<String, String>,
}

impl Values {
    /// Names of all settings.
    pub(crate) const NAMES: [&'static str; 18] = [
        "gateway",
        "public_url",
        "tls_certificate",
        "tls_key",
        "listen",
        "peers",
        "mdns",
        "cache_size",
        "upload_rate",
        "download_rate",
        "xet_downloads",
        "namespace_alias",
        "author_name",
        "author_email",
        "view_cache_bytes",
        "log",
        "log_format",
        "aliases",
    ];
}

impl Default for Values {
    fn default() -> Self {
        let node = cairn_node::Config::new("");
        Self {
            gateway: GATEWAY.parse().expect("invariant: a valid address"),
            public_url: None,
            tls_certificate: None,
            tls_key: None,
            listen: Vec::new(),
            peers: Vec::new(),
            mdns: true,
            cache_size: None,
            upload_rate: None,
            download_rate: None,
            xet_downloads: true,
            namespace_alias: node.namespace_alias,
            author_name: node.author_name,
            author_email: node.author_email,
            view_cache_bytes: node.view_cache_bytes,
            log: "warn".to_owned(),
            log_format: LogFormat::Text,
            aliases: node.aliases,
        }
    }
}

/// The settings in effect.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Data folder, absolute.
    pub(crate) data: PathBuf,
    /// Where the data folder was named.
    pub(crate) data_origin: String,
    /// The file that was read, if any.
    pub(crate) file: Option<PathBuf>,
    /// Everything else.
    pub(crate) values: Values,
    origins: BTreeMap<&'static str, String>,
    strange: Vec<String>,
}

impl Settings {
    /// Reads flags, environment and file.
    pub(crate) fn load(cli: &Cli) -> Result<Self, Failure> {
        let (data, data_origin) = data_folder(cli.global.data.as_deref())?;
        let file = settings_file(cli.global.config.as_deref(), &data)?;
        let mut layers = vec![Layer::defaults(&Values::default())];
        if let Some(file) = &file {
            layers.push(Layer::file(file)?);
        }
        for name in Values::NAMES {
            if let Some(text) = environment(&variable(name))? {
                layers.push(Layer::variable(name, &variable(name), &text)?);
            }
        }
        layers.extend(flags(cli));
        let figment = layers.into_iter().fold(Figment::new(), Figment::merge);
        let values: Values = figment
            .extract()
            .map_err(|error| not_valid(error, file.as_deref()))?;
        let origin = |name| {
            let metadata = figment.find_metadata(name);
            metadata.map_or_else(|| layer::DEFAULT.to_owned(), |found| found.name.to_string())
        };
        let mut settings = Self {
            origins: Values::NAMES
                .into_iter()
                .map(|name| (name, origin(name)))
                .collect(),
            strange: strange_variables(),
            data,
            data_origin,
            file,
            values,
        };
        settings.check()?;
        let absolute = |name, path: &Option<PathBuf>| {
            let path = path.as_deref();
            path.map(|path| settings.absolute(name, path)).transpose()
        };
        let certificate = absolute("tls_certificate", &settings.values.tls_certificate)?;
        let key = absolute("tls_key", &settings.values.tls_key)?;
        settings.values.tls_certificate = certificate;
        settings.values.tls_key = key;
        Ok(settings)
    }

    /// A path of a setting, absolute: in the file it begins at the file's folder, elsewhere at the current one.
    fn absolute(&self, name: &str, path: &Path) -> Result<PathBuf, Failure> {
        let from_file = |file: &&Path| self.origin(name) == file.display().to_string();
        let file = self.file.as_deref().filter(from_file);
        match file.and_then(Path::parent) {
            Some(folder) => Ok(folder.join(path)),
            None => std::path::absolute(path)
                .map_err(|error| self.refuse(name, &format!("{}: {error}", path.display()))),
        }
    }

    /// Where a setting comes from.
    pub(crate) fn origin(&self, name: &str) -> &str {
        self.origins
            .get(name)
            .map_or(layer::DEFAULT, String::as_str)
    }

    /// Logs what looks like a mistake and stops nothing.
    pub(crate) fn warn(&self) {
        for variable in &self.strange {
            tracing::warn!("environment variable {variable} names no setting");
        }
    }

    /// What a node is told that speaks to others.
    pub(crate) fn networked(&self) -> cairn_node::Config {
        cairn_node::Config {
            network: Some(cairn_node::NetworkConfig {
                listen: self.values.listen.clone(),
                peers: self.values.peers.clone(),
                mdns: self.values.mdns,
                upload_rate: self.values.upload_rate,
                download_rate: self.values.download_rate,
            }),
            ..self.node()
        }
    }

    /// What a node is told that speaks to nobody.
    pub(crate) fn node(&self) -> cairn_node::Config {
        cairn_node::Config {
            cache_bytes: self.values.cache_size,
            aliases: self.values.aliases.clone(),
            namespace_alias: self.values.namespace_alias.clone(),
            author_name: self.values.author_name.clone(),
            author_email: self.values.author_email.clone(),
            view_cache_bytes: self.values.view_cache_bytes,
            ..cairn_node::Config::new(&self.data)
        }
    }

    /// A failure that names a setting and where it comes from.
    pub(crate) fn refuse(&self, name: &str, reason: &str) -> Failure {
        Failure::usage(format!(
            "setting `{name}` ({}) is not valid: {reason}",
            self.origin(name)
        ))
        .hint("docs/cairn.toml explains every setting")
    }

    fn check(&self) -> Result<(), Failure> {
        let values = &self.values;
        match values.namespace_alias.parse::<NamespaceName>() {
            Ok(NamespaceName::Plain(_)) => {}
            Ok(_) => {
                let reason = "an alias has no dot and is no hash name";
                return Err(self.refuse("namespace_alias", reason));
            }
            Err(error) => return Err(self.refuse("namespace_alias", &error.to_string())),
        }
        for (alias, target) in &values.aliases {
            let parts = check_segment(alias).and_then(|()| {
                let (namespace, name) = target.split_once('/').unwrap_or(("", target));
                check_segment(namespace).and_then(|()| check_segment(name))
            });
            if let Err(error) = parts {
                let reason =
                    format!("{alias} = {target:?} is not NAME = \"NAMESPACE/NAME\": {error}");
                return Err(self.refuse("aliases", &reason));
            }
        }
        for (name, value) in [
            ("author_name", &values.author_name),
            ("author_email", &values.author_email),
        ] {
            let bad = |c: char| c.is_control() || matches!(c, '<' | '>');
            if value.as_ref().is_some_and(|text| text.contains(bad)) {
                return Err(self.refuse(name, "git allows no `<`, `>` or control characters"));
            }
        }
        if let Some(url) = &values.public_url
            && !(url.starts_with("http://") || url.starts_with("https://"))
        {
            return Err(self.refuse("public_url", "it begins with http:// or https://"));
        }
        let alone = match (&values.tls_certificate, &values.tls_key) {
            (Some(_), None) => Some(("tls_certificate", "tls_key")),
            (None, Some(_)) => Some(("tls_key", "tls_certificate")),
            _ => None,
        };
        if let Some((name, other)) = alone {
            let reason = format!("it goes together with `{other}`, which is not set");
            return Err(self.refuse(name, &reason));
        }
        for (name, addresses) in [("listen", &values.listen), ("peers", &values.peers)] {
            for address in addresses {
                if let Err(error) = cairn_node::config::check_address(address) {
                    return Err(self.refuse(name, &format!("{address:?}: {error}")));
                }
            }
        }
        for (name, rate) in [
            ("upload_rate", values.upload_rate),
            ("download_rate", values.download_rate),
        ] {
            if rate.is_some_and(|rate| rate < RATE_MIN) {
                return Err(self.refuse(name, "it is 1024 bytes a second or more"));
            }
        }
        if values.view_cache_bytes < VIEW_CACHE_BYTES_MIN {
            return Err(self.refuse("view_cache_bytes", "it is 1048576 (1 MiB) or more"));
        }
        Ok(())
    }
}

/// The flags that were given, each a layer.
fn flags(cli: &Cli) -> Vec<Layer> {
    let text = |name, value: &Option<String>| value.as_deref().map(|text| Layer::flag(name, text));
    let mut layers = vec![
        text("log", &cli.global.log),
        text("log_format", &cli.global.log_format),
    ];
    if let Verb::Up(up) = &cli.verb {
        layers.extend([
            text("gateway", &up.gateway),
            text("public_url", &up.public_url),
            text("tls_certificate", &up.tls_certificate),
            text("tls_key", &up.tls_key),
            text("cache_size", &up.cache_size),
            text("upload_rate", &up.upload_rate),
            text("download_rate", &up.download_rate),
            Layer::flags("--listen", "listen", &up.listen),
            Layer::flags("--peer", "peers", &up.peers),
            up.no_mdns
                .then(|| Layer::switch("--no-mdns", "mdns", false)),
        ]);
    }
    layers.into_iter().flatten().collect()
}

/// The variable that overrides a setting.
fn variable(name: &str) -> String {
    format!("CAIRN_{}", name.to_ascii_uppercase())
}

/// A variable's text; one that is empty counts as absent.
fn environment(variable: &str) -> Result<Option<String>, Failure> {
    match std::env::var(variable) {
        Ok(text) => Ok(Some(text).filter(|text| !text.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(error) => Err(Failure::usage(format!(
            "environment variable {variable}: {error}"
        ))),
    }
}

fn path_in_environment(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// `CAIRN_…` variables that nothing reads: most likely mistyped.
fn strange_variables() -> Vec<String> {
    let known: Vec<String> = ["data", "config"]
        .into_iter()
        .chain(Values::NAMES)
        .map(variable)
        .collect();
    std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with("CAIRN_") && !known.contains(name))
        .collect()
}

/// A folder of the XDG base directories, which counts only when absolute.
fn base_folder(variable: &str, in_home: &str) -> Option<PathBuf> {
    path_in_environment(variable)
        .filter(|path| path.is_absolute())
        .or_else(|| path_in_environment("HOME").map(|home| home.join(in_home)))
}

fn data_folder(flag: Option<&Path>) -> Result<(PathBuf, String), Failure> {
    let (path, origin) = if let Some(path) = flag {
        (path.to_owned(), "--data".to_owned())
    } else if let Some(path) = path_in_environment("CAIRN_DATA") {
        (path, "environment CAIRN_DATA".to_owned())
    } else if let Some(base) = base_folder("XDG_DATA_HOME", ".local/share") {
        (base.join("cairn"), layer::DEFAULT.to_owned())
    } else {
        return Err(Failure::usage("there is no home folder to keep data in")
            .hint("name a data folder with `--data DIR` or CAIRN_DATA"));
    };
    let path = std::path::absolute(&path)
        .with_context(|| format!("data folder {}", path.display()))
        .map_err(Failure::from)?;
    Ok((path, origin))
}

/// The file to read: one that was named must exist, the others may.
fn settings_file(flag: Option<&Path>, data: &Path) -> Result<Option<PathBuf>, Failure> {
    if let Some(path) = flag
        .map(Path::to_owned)
        .or_else(|| path_in_environment("CAIRN_CONFIG"))
    {
        return Ok(Some(
            std::path::absolute(&path)
                .with_context(|| format!("settings file {}", path.display()))?,
        ));
    }
    let user = base_folder("XDG_CONFIG_HOME", ".config").map(|base| base.join("cairn"));
    Ok([Some(data.to_owned()), user]
        .into_iter()
        .flatten()
        .map(|folder| folder.join(FILE_NAME))
        .find(|path| path.exists()))
}

fn not_valid(error: figment::Error, file: Option<&Path>) -> Failure {
    let place = error.metadata.as_ref().map_or_else(
        || file.map_or_else(String::new, |file| file.display().to_string()),
        |metadata| metadata.name.to_string(),
    );
    let path = error.path.join(".");
    match error.kind {
        Kind::UnknownField(name, known) => {
            Failure::usage(format!("unknown setting `{name}` in {place}"))
                .hint(format!("the settings are {}", known.join(", ")))
        }
        kind => Failure::usage(format!("setting `{path}` ({place}) is not valid: {kind}"))
            .hint("docs/cairn.toml explains every setting"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_named() {
        let value = serde_json::to_value(Values::default()).unwrap();
        let mut members: Vec<&String> = value.as_object().unwrap().keys().collect();
        let mut names = Values::NAMES.to_vec();
        members.sort();
        names.sort_unstable();
        assert_eq!(members, names);
    }
}
