// What @huggingface/hub publishes: repositories, files, commits, branches. At their home, by an account.

import assert from "node:assert/strict";
import { openAsBlob } from "node:fs";
import { mkdir, mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { pathToFileURL } from "node:url";

import { collect, hub, samples, sha256 } from "./hub.mjs";

const { name: owner, token: accessToken, url: hubUrl } = samples.account;

// How large files are sent; every test that sends some runs once for each.
const PATHS = ["lfs"];
const MULTIPART_BYTES_MIN = 256 * 2 ** 20;

const scratch = await mkdtemp(path.join(tmpdir(), "cairn-js."));
after(() => rm(scratch, { recursive: true }));

let made = 0;

/** A name that nothing has had. */
const freshName = () => `${owner}/js-${(made += 1)}`;

/** A new repository, as every call names it. */
async function newRepo(type = "model", more = {}) {
  const repo = { type, name: freshName() };
  await hub.createRepo({ repo, accessToken, hubUrl, ...more });
  return { repo, accessToken, hubUrl };
}

const noise = (size, seed) =>
  Uint8Array.from({ length: size }, (_, at) => (at === 0 ? 0 : (at * 31 + seed + (at >> 8)) % 251));
const file = (name, content) => ({ path: name, content: new Blob([content]) });

/** Path to bytes of all that a repository holds, but the attributes that it began with. */
async function contents(at, revision) {
  const found = {};
  for await (const entry of hub.listFiles({ ...at, recursive: true, revision })) {
    if (entry.type !== "file" || entry.path === ".gitattributes") continue;
    const blob = await hub.downloadFile({ ...at, path: entry.path, revision });
    found[entry.path] = Buffer.from(await blob.arrayBuffer());
  }
  return found;
}

const assertContents = async (at, expected, revision) =>
  assert.deepEqual(
    await contents(at, revision),
    Object.fromEntries(Object.entries(expected).map(([name, content]) => [name, Buffer.from(content)])),
  );

test("whoAmI names the account and its token", async () => {
  const who = await hub.whoAmI({ accessToken, hubUrl });
  assert.deepEqual([who.type, who.name, who.orgs], ["user", owner, []]);
  assert.deepEqual([who.auth.type, who.auth.accessToken.role], ["access_token", "write"]);
  assert.ok(Math.abs(Date.now() - who.auth.accessToken.createdAt) < 3_600_000);
  const wrong = hub.whoAmI({ accessToken: "hf_wrong", hubUrl });
  await assert.rejects(wrong, { name: "Error", statusCode: 401 });
});

for (const type of ["model", "dataset", "space"]) {
  test(`createRepo and deleteRepo of a ${type}`, async () => {
    const repo = { type, name: freshName() };
    const at = { repo, accessToken, hubUrl };
    assert.equal(await hub.repoExists(at), false);
    const { repoUrl, id } = await hub.createRepo(at);
    assert.equal(repoUrl, `${hubUrl}/${type === "model" ? "" : `${type}s/`}${repo.name}`);
    assert.match(id, /^[0-9a-f]{24}$/);
    assert.equal(await hub.repoExists(at), true);
    await assert.rejects(hub.createRepo(at), (error) => {
      assert.equal(error.statusCode, 409);
      assert.match(error.message, /already created/);
      return true;
    });
    await hub.deleteRepo(at);
    assert.equal(await hub.repoExists(at), false);
    await assert.rejects(hub.deleteRepo(at), { statusCode: 404 });
  });
}

test("createRepo begins with the files that it is given", async () => {
  const files = [file("README.md", "---\nlicense: mit\n---\n"), file("a/b.txt", "b\n")];
  const at = await newRepo("model", { files });
  await assertContents(at, { "README.md": "---\nlicense: mit\n---\n", "a/b.txt": "b\n" });
});

test("a private repository is its owner's", async () => {
  const at = await newRepo("model", { visibility: "private" });
  assert.equal((await hub.modelInfo({ name: at.repo.name, accessToken, hubUrl })).private, true);
  assert.equal(await hub.repoExists({ repo: at.repo, hubUrl }), false);
  await assert.rejects(hub.modelInfo({ name: at.repo.name, hubUrl }), (error) =>
    [401, 404].includes(error.statusCode),
  );
  const listed = async (more) =>
    (await collect(hub.listModels({ search: { owner }, hubUrl, ...more }))).map((item) => item.name);
  assert.ok((await listed({ accessToken })).includes(at.repo.name));
  assert.ok(!(await listed({})).includes(at.repo.name));
});

for (const way of PATHS) {
  const useXet = way === "xet";
  // What was sent the one way is not sent the other way again.
  const bytes = (size, seed = 0) => noise(size, seed + 100 * PATHS.indexOf(way));

  test(`uploadFile and uploadFiles by ${way}`, async () => {
    const at = await newRepo();
    const expected = {
      "a.txt": "text\n",
      "größe/mit leer.txt": "odd\n",
      "empty.txt": "",
      "model.safetensors": bytes(300_000),
      "deep/er/weights.bin": bytes(1_000, 7),
    };
    const files = Object.entries(expected).map(([name, content]) => file(name, content));
    const asked = [];
    const listening = (url, options) => {
      asked.push(url.toString());
      return fetch(url, options);
    };
    const made = await hub.uploadFiles({ ...at, files, commitTitle: "Add five", useXet, fetch: listening });
    // The library falls back to LFS without a word.
    assert.equal(asked.some((url) => url.includes("/xorbs/")), useXet);
    assert.equal(made.commit.url, `${hubUrl}/${at.repo.name}/commit/${made.commit.oid}`);
    await assertContents(at, expected);
    await hub.uploadFile({ ...at, file: file("b.bin", bytes(5)), commitTitle: "Add one", useXet });
    await assertContents(at, { ...expected, "b.bin": bytes(5) });
    const titles = (await collect(hub.listCommits(at))).map((commit) => commit.title);
    assert.deepEqual(titles, ["Add one", "Add five", "initial commit"]);
    const [info] = await hub.pathsInfo({ ...at, paths: ["model.safetensors"] });
    assert.deepEqual([info.size, info.lfs.oid], [300_000, sha256(bytes(300_000))]);
  });

  test(`a folder of files by ${way}`, async () => {
    const at = await newRepo("dataset");
    const folder = path.join(scratch, `folder-${way}`);
    await mkdir(path.join(folder, "below"), { recursive: true });
    await writeFile(path.join(folder, "x.csv"), "n\n1\n");
    await writeFile(path.join(folder, "below", "y.parquet"), bytes(2_000));
    await hub.uploadFiles({ ...at, files: [pathToFileURL(folder)], useXet });
    const name = path.basename(folder);
    await assertContents(at, { [`${name}/x.csv`]: "n\n1\n", [`${name}/below/y.parquet`]: bytes(2_000) });
  });

  test(`commit adds, changes, edits and deletes by ${way}`, async () => {
    const at = await newRepo();
    const old = {
      ...{ "keep.txt": "kept\n", "change.txt": "before\n", "gone.txt": "gone\n" },
      "w.bin": bytes(900),
    };
    const files = Object.entries(old).map(([name, content]) => file(name, content));
    const first = await hub.uploadFiles({ ...at, files, useXet });
    const originalContent = new Blob([old["w.bin"]]);
    const edits = [{ content: new Blob(["x"]), start: 1, end: 5 }];
    const second = await hub.commit({
      ...at,
      title: "Do it all",
      description: "In one go",
      parentCommit: first.commit.oid,
      operations: [
        { operation: "addOrUpdate", ...file("change.txt", "after\n") },
        { operation: "addOrUpdate", ...file("new/n.bin", bytes(900, 1)) },
        { operation: "delete", path: "gone.txt" },
        { operation: "edit", path: "w.bin", originalContent, edits },
      ],
      useXet,
    });
    const edited = Buffer.concat([bytes(900).slice(0, 1), Buffer.from("x"), bytes(900).slice(5)]);
    await assertContents(at, {
      ...{ "keep.txt": "kept\n", "change.txt": "after\n" },
      ...{ "new/n.bin": bytes(900, 1), "w.bin": edited },
    });
    await assertContents(at, old, first.commit.oid);
    const late = { ...at, title: "Late", parentCommit: first.commit.oid, useXet };
    const operations = [{ operation: "addOrUpdate", ...file("x.txt", "x\n") }];
    await assert.rejects(hub.commit({ ...late, operations }), { statusCode: 412 });
    const [latest] = await collect(hub.listCommits(at));
    assert.deepEqual([latest.oid, latest.title], [second.commit.oid, "Do it all"]);
    assert.deepEqual(latest.authors.map((author) => author.username), [owner]);
  });

  test(`a file large enough for several parts at once by ${way}`, async () => {
    const at = await newRepo();
    const large = path.join(scratch, `large-${way}.bin`);
    const handle = await open(large, "w");
    // A hole, with a few bytes of its own in each part.
    for (let place = 0; place <= MULTIPART_BYTES_MIN; place += 2 ** 25) {
      await handle.write(bytes(1_000, place / 2 ** 25), 0, 1_000, place);
    }
    await handle.close();
    const content = await openAsBlob(large);
    await hub.uploadFile({ ...at, file: { path: "large.bin", content }, useXet });
    const back = await hub.downloadFile({ ...at, path: "large.bin", xet: useXet });
    const [sent, got] = await Promise.all([content.arrayBuffer(), back.arrayBuffer()]);
    assert.equal(sha256(Buffer.from(got)), sha256(Buffer.from(sent)));
  });
}

test("deleteFile and deleteFiles", async () => {
  const at = await newRepo();
  const files = ["a.txt", "b.txt", "c.txt", "d.txt"].map((name) => file(name, name));
  await hub.uploadFiles({ ...at, files });
  await hub.deleteFile({ ...at, path: "a.txt" });
  await hub.deleteFiles({ ...at, paths: ["b.txt", "c.txt"], commitTitle: "Fewer" });
  await assertContents(at, { "d.txt": "d.txt" });
  await assert.rejects(hub.deleteFile({ ...at, path: "a.txt" }), { statusCode: 404 });
});

test("createBranch and deleteBranch", async () => {
  const at = await newRepo();
  await hub.createBranch({ ...at, branch: "feature/one" });
  await hub.uploadFile({ ...at, file: file("x.txt", "x\n"), branch: "feature/one" });
  await assertContents(at, {});
  await assertContents(at, { "x.txt": "x\n" }, "feature/one");
  await assert.rejects(hub.createBranch({ ...at, branch: "feature/one" }), { statusCode: 409 });
  await hub.createBranch({ ...at, branch: "feature/one", revision: "main", overwrite: true });
  await assertContents(at, {}, "feature/one");
  await hub.deleteBranch({ ...at, branch: "feature/one" });
  await assert.rejects(hub.deleteBranch({ ...at, branch: "feature/one" }), { statusCode: 404 });
});

test("createBranch takes a branch back to what an earlier commit had", async () => {
  const at = await newRepo();
  const [before, after] = ["before", "after"].map((text) => ({
    "a.txt": `${text}\n`,
    "weights.bin": `\0${text}`,
  }));
  const upload = (files) =>
    hub.uploadFiles({ ...at, files: Object.entries(files).map(([name, text]) => file(name, text)) });
  const first = (await upload(before)).commit.oid;
  const second = (await upload(after)).commit.oid;
  // Without a revision it stays where it is; with one it goes there, the default branch, too.
  await hub.createBranch({ ...at, branch: "main", overwrite: true });
  await assertContents(at, after);
  await hub.createBranch({ ...at, branch: "kept", revision: second });
  await hub.createBranch({ ...at, branch: "main", revision: first, overwrite: true });
  await assertContents(at, before);
  assert.equal(await hub.countCommits({ ...at }), 2);
  await hub.createBranch({ ...at, branch: "main", revision: "kept", overwrite: true });
  await assertContents(at, after);
  await assert.rejects(
    hub.createBranch({ ...at, branch: "main", revision: "absent", overwrite: true }),
    { statusCode: 404 },
  );
  await hub.createBranch({ ...at, branch: "kept", empty: true, overwrite: true });
  await assertContents(at, {}, "kept");
  await assertContents(at, after);
});

test("an empty branch", async () => {
  const at = await newRepo();
  await hub.uploadFile({ ...at, file: file("x.txt", "x\n") });
  await hub.createBranch({ ...at, branch: "empty", empty: true });
  await assertContents(at, {}, "empty");
});

test("strangers publish nothing", async () => {
  const at = await newRepo();
  const strange = { ...at, file: file("x.txt", "x\n") };
  await assert.rejects(hub.uploadFile({ ...strange, accessToken: "hf_wrong" }), { statusCode: 401 });
  await assert.rejects(hub.uploadFile({ ...strange, accessToken: undefined }), { statusCode: 401 });
  const elsewhere = { type: "model", name: `${samples.namespace}/not-mine` };
  await assert.rejects(hub.createRepo({ ...at, repo: elsewhere }), { statusCode: 403 });
  await assertContents(at, {});
});
