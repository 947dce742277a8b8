//! An image of one layer with one file, as an archive: the OCI layout, and beside it the list that `docker load` reads.
//! Pure: the same input gives the same bytes.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::elf::Architecture;

/// Where the agent is in the image.
const PROGRAM: &str = "leadline";
/// Where it listens.
const PORT: &str = "9843/tcp";

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What the image is called and says of itself.
pub(super) struct Image<'a> {
    pub(super) name: &'a str,
    pub(super) tag: &'a str,
    pub(super) labels: BTreeMap<&'static str, String>,
}

/// The archive, and the digest by which the image is known.
pub(super) struct Archive {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: String,
}

/// An object whose keys are in their order, so that it does not matter whether the library keeps or sorts them.
type Object = BTreeMap<&'static str, Value>;

/// Content that is named by its digest.
struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        let digest = format!("{:x}", Sha256::digest(&bytes));
        Self { digest, bytes }
    }

    fn json(value: &Value) -> Result<Self> {
        serde_json::to_vec(value).map(Self::new).context("an image's description cannot be written")
    }

    fn name(&self) -> String {
        format!("sha256:{}", self.digest)
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }

    fn descriptor(&self, media_type: &str) -> Object {
        let size = json!(self.bytes.len());
        Object::from([("digest", json!(self.name())), ("mediaType", json!(media_type)), ("size", size)])
    }
}

/// The part of an image that is for one architecture.
struct Part {
    architecture: Architecture,
    layer: Blob,
    config: Blob,
    manifest: Blob,
}

impl Part {
    fn new(image: &Image<'_>, architecture: Architecture, binary: &[u8]) -> Result<Self> {
        let layer = Blob::new(tar_of([(PROGRAM.to_owned(), 0o755, Some(binary))])?);
        let config = Blob::json(&json!(config(image, architecture, &layer)))?;
        let manifest = Blob::json(&json!({
            "config": config.descriptor(CONFIG),
            "layers": [layer.descriptor(LAYER)],
            "mediaType": MANIFEST,
            "schemaVersion": 2,
        }))?;
        Ok(Self { architecture, layer, config, manifest })
    }

    fn descriptor(&self) -> Object {
        let mut descriptor = self.manifest.descriptor(MANIFEST);
        descriptor.insert("platform", json!(platform(self.architecture)));
        descriptor
    }
}

/// Packs the binaries.
pub(super) fn archive(image: &Image<'_>, programs: &BTreeMap<Architecture, Vec<u8>>) -> Result<Archive> {
    let part = |(architecture, binary): (&Architecture, &Vec<u8>)| Part::new(image, *architecture, binary);
    let parts = programs.iter().map(part).collect::<Result<Vec<_>>>()?;
    let reference = format!("{}:{}", image.name, image.tag);
    let layout = json!({"imageLayoutVersion": "1.0.0"});
    let mut files = BTreeMap::from([("oci-layout".to_owned(), Blob::json(&layout)?.bytes)]);
    let (digest, mut top) = if let [part] = &parts[..] {
        // What reads this list knows one architecture only.
        let docker = json!([{
            "Config": part.config.path(),
            "Layers": [part.layer.path()],
            "RepoTags": [reference.as_str()],
        }]);
        files.insert("manifest.json".to_owned(), Blob::json(&docker)?.bytes);
        (part.manifest.name(), part.descriptor())
    } else {
        let index = Blob::json(&index(&parts.iter().map(Part::descriptor).collect::<Vec<_>>()))?;
        let found = (index.name(), index.descriptor(INDEX));
        files.insert(index.path(), index.bytes);
        found
    };
    // containerd takes the whole name from its own annotation; others the tag.
    let names = json!({
        "io.containerd.image.name": reference,
        "org.opencontainers.image.ref.name": image.tag,
    });
    top.insert("annotations", names);
    files.insert("index.json".to_owned(), Blob::json(&index(&[top]))?.bytes);
    let blobs = parts.into_iter().flat_map(|part| [part.layer, part.config, part.manifest]);
    files.extend(blobs.map(|blob| (blob.path(), blob.bytes)));
    let folders = ["blobs/", "blobs/sha256/"].map(|path| (path.to_owned(), 0o755, None));
    let files = files.iter().map(|(path, bytes)| (path.clone(), 0o644, Some(bytes.as_slice())));
    Ok(Archive { bytes: tar_of(folders.into_iter().chain(files))?, digest })
}

fn config(image: &Image<'_>, architecture: Architecture, layer: &Blob) -> Object {
    let started = json!({
        "Cmd": ["run"],
        "Entrypoint": [format!("/{PROGRAM}")],
        "ExposedPorts": {PORT: {}},
        "Labels": image.labels,
        "User": "0",
    });
    let mut config = platform(architecture);
    config.insert("config", started);
    config.insert("history", json!([{"created_by": "cargo xtask image"}]));
    config.insert("rootfs", json!({"diff_ids": [layer.name()], "type": "layers"}));
    config
}

fn platform(architecture: Architecture) -> Object {
    let variant = architecture.variant().map(|variant| ("variant", json!(variant)));
    let known = [("architecture", json!(architecture.name())), ("os", json!("linux"))];
    known.into_iter().chain(variant).collect()
}

fn index(manifests: &[Object]) -> Value {
    json!({"manifests": manifests, "mediaType": INDEX, "schemaVersion": 2})
}

/// Files with their modes, and folders; without times and owners.
fn tar_of<'a>(entries: impl IntoIterator<Item = (String, u32, Option<&'a [u8]>)>) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for (path, mode, content) in entries {
        let bytes = content.unwrap_or_default();
        let mut header = Header::new_ustar();
        header.set_entry_type(if content.is_some() { EntryType::Regular } else { EntryType::Directory });
        header.set_mode(mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(bytes.len().try_into().with_context(|| format!("{path} is too large"))?);
        tar.append_data(&mut header, &path, bytes).with_context(|| format!("{path} cannot be packed"))?;
    }
    tar.into_inner().context("the archive cannot be finished")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const BINARY: &[u8] = b"not much of a program";

    fn pack(binary: &[u8]) -> Archive {
        pack_for(&[Architecture::Arm64], binary)
    }

    fn pack_for(architectures: &[Architecture], binary: &[u8]) -> Archive {
        let labels = BTreeMap::from([("org.opencontainers.image.title", "leadline".to_owned())]);
        let image = Image { name: "localhost/leadline", tag: "1.2.3", labels };
        let programs = architectures.iter().map(|architecture| (*architecture, binary.to_vec()));
        archive(&image, &programs.collect()).unwrap()
    }

    /// Path, mode, time and content of every entry.
    fn entries(bytes: &[u8]) -> Vec<(String, u32, u64, Vec<u8>)> {
        let mut archive = tar::Archive::new(bytes);
        let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let header = entry.header();
            (path, header.mode().unwrap(), header.mtime().unwrap(), content)
        };
        archive.entries().unwrap().map(read).collect()
    }

    fn files(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        entries(bytes).into_iter().map(|(path, _, _, content)| (path, content)).collect()
    }

    fn parse(files: &BTreeMap<String, Vec<u8>>, path: &str) -> Value {
        serde_json::from_slice(&files[path]).unwrap()
    }

    /// The content that a descriptor names, with its size checked.
    fn follow<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let content = &files[&format!("blobs/sha256/{digest}")];
        assert_eq!(descriptor["size"], content.len());
        content
    }

    #[test]
    fn every_blob_has_the_digest_that_is_its_name() {
        let files = files(&pack(BINARY).bytes);
        let blobs: Vec<_> = files
            .iter()
            .filter(|(path, content)| path.starts_with("blobs/") && !content.is_empty())
            .collect();
        assert_eq!(blobs.len(), 3);
        for (path, content) in blobs {
            let digest = format!("{:x}", Sha256::digest(content));
            assert_eq!(*path, format!("blobs/sha256/{digest}"));
        }
    }

    #[test]
    fn the_index_leads_to_the_binary_and_to_how_it_is_started() {
        let packed = pack(BINARY);
        let files = files(&packed.bytes);
        let index = parse(&files, "index.json");
        let image = &index["manifests"][0];
        assert_eq!(image["annotations"]["io.containerd.image.name"], "localhost/leadline:1.2.3");
        assert_eq!(image["annotations"]["org.opencontainers.image.ref.name"], "1.2.3");
        assert_eq!(image["digest"], packed.digest);
        let manifest: Value = serde_json::from_slice(follow(&files, image)).unwrap();
        let config: Value = serde_json::from_slice(follow(&files, &manifest["config"])).unwrap();
        let layer = follow(&files, &manifest["layers"][0]);
        assert_eq!(config["rootfs"]["diff_ids"], json!([manifest["layers"][0]["digest"]]));
        let platform = json!({"architecture": "arm64", "os": "linux", "variant": "v8"});
        assert_eq!(image["platform"], platform);
        assert!(
            ["architecture", "os", "variant"].iter().all(|key| config[*key] == platform[*key]),
            "{config}"
        );
        assert_eq!(config["config"]["Entrypoint"], json!(["/leadline"]));
        assert_eq!(config["config"]["Cmd"], json!(["run"]));
        assert_eq!(config["config"]["User"], "0");
        assert_eq!(config["config"]["Labels"]["org.opencontainers.image.title"], "leadline");
        assert_eq!(entries(layer), [("leadline".to_owned(), 0o755, 0, BINARY.to_vec())]);
    }

    #[test]
    fn only_arm_has_a_variant() {
        assert_eq!(json!(platform(Architecture::Amd64)), json!({"architecture": "amd64", "os": "linux"}));
    }

    #[test]
    fn one_name_leads_to_the_part_of_each_architecture() {
        let packed = pack_for(&[Architecture::Amd64, Architecture::Arm64], BINARY);
        let files = files(&packed.bytes);
        let index = parse(&files, "index.json");
        let [image] = &index["manifests"].as_array().unwrap()[..] else { panic!("{index}") };
        assert_eq!(image["annotations"]["io.containerd.image.name"], "localhost/leadline:1.2.3");
        assert_eq!((&image["digest"], &image["mediaType"]), (&json!(packed.digest), &json!(INDEX)));
        let inner: Value = serde_json::from_slice(follow(&files, image)).unwrap();
        let parts = inner["manifests"].as_array().unwrap();
        let platforms: Vec<&Value> = parts.iter().map(|part| &part["platform"]["architecture"]).collect();
        assert_eq!(platforms, ["amd64", "arm64"]);
        for part in parts {
            let manifest: Value = serde_json::from_slice(follow(&files, part)).unwrap();
            let config: Value = serde_json::from_slice(follow(&files, &manifest["config"])).unwrap();
            assert_eq!(config["architecture"], part["platform"]["architecture"]);
            assert_eq!(config["variant"], part["platform"]["variant"]);
            assert_eq!(entries(follow(&files, &manifest["layers"][0]))[0].3, BINARY);
        }
        assert!(!files.contains_key("manifest.json"));
    }

    #[test]
    fn docker_finds_the_same_config_and_layer() {
        let files = files(&pack(BINARY).bytes);
        let list = parse(&files, "manifest.json");
        assert_eq!(list[0]["RepoTags"], json!(["localhost/leadline:1.2.3"]));
        assert!(files.contains_key(list[0]["Config"].as_str().unwrap()));
        assert!(files.contains_key(list[0]["Layers"][0].as_str().unwrap()));
        assert_eq!(parse(&files, "oci-layout"), json!({"imageLayoutVersion": "1.0.0"}));
    }

    #[test]
    fn the_same_binary_gives_the_same_bytes_and_another_one_another_digest() {
        assert_eq!(pack(BINARY).bytes, pack(BINARY).bytes);
        assert_ne!(pack(BINARY).digest, pack(b"another").digest);
    }

    #[test]
    fn nothing_in_the_archive_depends_on_time_or_order() {
        let entries = entries(&pack(BINARY).bytes);
        assert!(entries.iter().all(|(_, _, time, _)| *time == 0));
        let paths: Vec<&String> = entries.iter().map(|(path, ..)| path).collect();
        assert!(paths.is_sorted(), "{paths:?}");
    }
}
