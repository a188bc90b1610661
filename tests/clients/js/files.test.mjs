// Files as @huggingface/hub lists and downloads them.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";

import { collect, hub, hubUrl, repo, samples, sha256 } from "./hub.mjs";

const bytes = async (blob) => Buffer.from(await blob.arrayBuffer());

test("listFiles lists the root, a folder, and everything below", async () => {
  const { odd } = samples;
  const names = Object.keys(odd.files);
  const root = await collect(hub.listFiles({ repo: repo(odd), hubUrl }));
  assert.deepEqual(
    new Set(root.map((entry) => entry.path)),
    new Set([...names.map((name) => name.split("/")[0]), ".gitattributes"]),
  );
  const deep = await collect(hub.listFiles({ repo: repo(odd), path: "deep/er", hubUrl }));
  assert.deepEqual(deep.map((entry) => [entry.type, entry.path]), [["directory", "deep/er/and"]]);
  const all = await collect(hub.listFiles({ repo: repo(odd), recursive: true, hubUrl }));
  const files = all.filter((entry) => entry.type === "file");
  assert.deepEqual(
    new Set(files.map((entry) => entry.path)),
    new Set([...names, ".gitattributes"]),
  );
  for (const entry of files.filter((file) => file.path !== ".gitattributes")) {
    const { size, sha256: hash, git } = odd.files[entry.path];
    assert.equal(entry.size, size, entry.path);
    if (entry.lfs) assert.deepEqual([entry.lfs.oid, entry.lfs.size], [hash, size]);
    else assert.equal(entry.oid, git);
    assert.equal(entry.xetHash, undefined);
  }
});

test("listFiles follows the pages", async () => {
  const { wide } = samples;
  const all = await collect(hub.listFiles({ repo: repo(wide), recursive: true, hubUrl }));
  const files = all.filter((entry) => entry.type === "file").map((entry) => entry.path);
  assert.equal(new Set(files).size, files.length);
  assert.equal(files.length, Object.keys(wide.files).length + 1);
});

test("listFiles names the last commit when expanded", async () => {
  const { parquet } = samples;
  const entries = await collect(
    hub.listFiles({ repo: repo(parquet), recursive: true, expand: true, hubUrl }),
  );
  assert.ok(entries.length > 3);
  for (const entry of entries) assert.equal(entry.lastCommit.id, parquet.commit);
});

test("listFiles takes revisions with slashes as they are", async () => {
  const published = samples.branches["feature/one"];
  for (const revision of ["feature/one", "refs/heads/feature/one", published.commit]) {
    const entries = await collect(hub.listFiles({ repo: repo(published), revision, hubUrl }));
    assert.deepEqual(
      new Set(entries.map((entry) => entry.path)),
      new Set(["README.md", "value.txt", ".gitattributes"]),
    );
  }
});

test("downloadFile gives the bytes of models, datasets and spaces", async () => {
  for (const sample of [samples.tiny_bert, samples.parquet, samples.space]) {
    for (const [name, { size, sha256: hash }] of Object.entries(sample.files)) {
      const blob = await hub.downloadFile({ repo: repo(sample), path: name, hubUrl });
      assert.equal(blob.size, size, name);
      assert.equal(sha256(await bytes(blob)), hash, name);
    }
  }
});

test("downloadFile gives a slice of a large file", async () => {
  const { minilm } = samples;
  const name = "model.safetensors";
  const content = await readFile(path.join(minilm.folder, name));
  const blob = await hub.downloadFile({ repo: repo(minilm), path: name, hubUrl });
  assert.equal(blob.size, content.length);
  const slice = await bytes(blob.slice(40_000_000, 40_100_000));
  assert.ok(slice.equals(content.subarray(40_000_000, 40_100_000)));
  assert.equal(sha256(await bytes(blob)), minilm.files[name].sha256);
});

test("downloadFile gives an empty file", async () => {
  const blob = await hub.downloadFile({ repo: repo(samples.odd), path: "empty.txt", hubUrl });
  assert.equal(blob.size, 0);
  assert.equal((await bytes(blob)).length, 0);
});

test("downloadFile takes a branch, and the pointer of an LFS file", async () => {
  const dev = samples.branches.dev;
  const value = await hub.downloadFile({ repo: repo(dev), path: "value.txt", revision: "dev", hubUrl });
  assert.equal(await value.text(), "dev");
  const raw = await hub.downloadFile({
    ...{ repo: repo(samples.tiny_bert), path: "model.safetensors", raw: true, hubUrl },
  });
  const { size, sha256: hash } = samples.tiny_bert.files["model.safetensors"];
  assert.equal(
    await raw.text(),
    `version https://git-lfs.github.com/spec/v1\noid sha256:${hash}\nsize ${size}\n`,
  );
});

test("fileDownloadInfo says size, etag and where", async () => {
  const { tiny_bert: model } = samples;
  for (const [name, etag] of [
    ["model.safetensors", model.files["model.safetensors"].sha256],
    ["config.json", model.files["config.json"].git],
  ]) {
    const info = await hub.fileDownloadInfo({ repo: repo(model), path: name, hubUrl });
    assert.equal(info.size, model.files[name].size);
    assert.equal(info.etag, `"${etag}"`);
    assert.equal(info.xet, undefined);
    assert.ok(info.url.startsWith(hubUrl));
  }
});

test("what is missing is null, false, or an error with its status", async () => {
  const { tiny_bert: model } = samples;
  const at = { repo: repo(model), hubUrl };
  assert.equal(await hub.fileDownloadInfo({ ...at, path: "nothing" }), null);
  assert.equal(await hub.downloadFile({ ...at, path: "nothing" }), null);
  await assert.rejects(hub.fileDownloadInfo({ ...at, path: "config.json", revision: "absent" }), {
    statusCode: 404,
    message: /Invalid rev id: absent/,
  });
  await assert.rejects(collect(hub.listFiles({ ...at, path: "nothing" })), { statusCode: 404 });
  const nowhere = { ...at, repo: { type: "model", name: `${samples.namespace}/nothing` } };
  await assert.rejects(
    collect(hub.listFiles(nowhere)),
    (error) => [401, 404].includes(error.statusCode),
  );
});

test("fileExists and repoExists tell truly", async () => {
  const { tiny_bert: model, parquet } = samples;
  const exists = (name) => hub.fileExists({ repo: repo(model), path: name, hubUrl });
  assert.equal(await exists("config.json"), true);
  assert.equal(await exists("model.safetensors"), true);
  assert.equal(await exists("nothing"), false);
  const repoExists = (type, name) => hub.repoExists({ repo: { type, name }, hubUrl });
  assert.equal(await repoExists("model", model.name), true);
  assert.equal(await repoExists("model", model.alias), true);
  assert.equal(await repoExists("dataset", parquet.name), true);
  assert.equal(await repoExists("dataset", model.name), false);
  assert.equal(await repoExists("model", "nobody/nothing"), false);
});

test("pathsInfo finds what there is", async () => {
  const { odd } = samples;
  const found = await hub.pathsInfo({
    ...{ repo: repo(odd), paths: ["deep", "c++.txt", "nothing"], expand: true, hubUrl },
  });
  assert.deepEqual(found.map((entry) => [entry.type, entry.path]), [
    ["directory", "deep"],
    ["file", "c++.txt"],
  ]);
  assert.equal(found[1].lastCommit.id, odd.commit);
});

test("snapshotDownload brings a repository into the cache", async () => {
  const { tiny_bert: model } = samples;
  const cacheDir = await mkdtemp(path.join(tmpdir(), "js-"));
  try {
    const folder = await hub.snapshotDownload({ repo: repo(model), cacheDir, hubUrl });
    assert.equal(path.basename(folder), model.commit);
    for (const [name, { sha256: hash }] of Object.entries(model.files)) {
      assert.equal(sha256(await readFile(path.join(folder, name))), hash, name);
    }
  } finally {
    await rm(cacheDir, { recursive: true, force: true });
  }
});

test("parseSafetensorsMetadata reads the header by ranges", async () => {
  const { tiny_bert: model } = samples;
  const found = await hub.parseSafetensorsMetadata({ repo: repo(model), hubUrl });
  assert.equal(found.sharded, false);
  const { dtype, shape } = found.header["embeddings.position_embeddings.weight"];
  assert.deepEqual([dtype, shape], ["F32", [64, 32]]);
});
