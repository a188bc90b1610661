// Repositories as @huggingface/hub lists and describes them.

import assert from "node:assert/strict";
import { test } from "node:test";

import { collect, hub, hubUrl, repo, samples } from "./hub.mjs";

const names = (items) => items.map((item) => item.name);

test("modelInfo, datasetInfo and spaceInfo describe a repository", async () => {
  const { tiny_bert: model, parquet, space } = samples;
  const info = await hub.modelInfo({
    ...{ name: model.name, additionalFields: ["sha", "tags", "cardData", "author"], hubUrl },
  });
  assert.equal(info.name, model.name);
  assert.equal(info.sha, model.commit);
  assert.equal(info.author, samples.namespace);
  assert.equal(info.task, "feature-extraction");
  assert.deepEqual([info.private, info.gated, info.likes], [false, false, 0]);
  assert.ok(info.tags.includes("license:apache-2.0"));
  assert.equal(info.cardData.license, "apache-2.0");
  assert.ok(Math.abs(Date.now() - info.updatedAt) < 3_600_000);
  assert.equal(typeof info.id, "string");
  const dataset = await hub.datasetInfo({ name: parquet.name, additionalFields: ["sha"], hubUrl });
  assert.equal(dataset.sha, parquet.commit);
  const app = await hub.spaceInfo({ name: space.name, additionalFields: ["sha"], hubUrl });
  assert.deepEqual([app.sha, app.sdk], [space.commit, "gradio"]);
});

test("modelInfo takes a revision", async () => {
  const { branches } = samples;
  for (const revision of ["dev", branches.first.commit]) {
    const info = await hub.modelInfo({
      ...{ name: branches.main.name, revision, additionalFields: ["sha"], hubUrl },
    });
    assert.equal(info.sha, revision === "dev" ? branches.dev.commit : revision);
  }
  await assert.rejects(hub.modelInfo({ name: branches.main.name, revision: "absent", hubUrl }), {
    statusCode: 404,
  });
});

test("checkRepoAccess is quiet where there is access, and fails where there is nothing", async () => {
  await hub.checkRepoAccess({ repo: repo(samples.tiny_bert), hubUrl });
  await assert.rejects(
    hub.checkRepoAccess({ repo: { type: "model", name: "nobody/nothing" }, hubUrl }),
    (error) => [401, 404].includes(error.statusCode),
  );
});

test("listModels filters, limits and follows pages", async () => {
  const { crowd, namespace } = samples;
  const list = (search, more = {}) => collect(hub.listModels({ search, hubUrl, ...more }));
  const all = await list({ query: "crowd-model", owner: namespace });
  assert.deepEqual(new Set(names(all)), new Set(names(crowd)));
  assert.ok(all.every((item) => item.updatedAt instanceof Date && !Number.isNaN(+item.updatedAt)));
  assert.deepEqual(names(await list({ tags: ["crowd", "member-3"] })), [crowd[3].name]);
  const images = await list({ task: "text-to-image", tags: ["crowd"] });
  assert.deepEqual(
    new Set(names(images)),
    new Set(names(crowd.filter((_, at) => at % 2 === 1))),
  );
  assert.equal((await list({ tags: ["crowd"] }, { limit: 4 })).length, 4);
  assert.deepEqual(await list({ owner: "nobody" }), []);
  // The library asks for as many as it wants at once: shorter pages show that it follows the links.
  const small = (url, options) => fetch(url.toString().replace("limit=500", "limit=2"), options);
  const paged = await list({ tags: ["crowd"] }, { fetch: small });
  assert.deepEqual(new Set(names(paged)), new Set(names(crowd)));
  assert.equal(paged.length, crowd.length);
});

test("listModels gives more fields when asked, in every order it knows", async () => {
  const { crowd } = samples;
  for (const sort of ["createdAt", "downloads", "likes", "lastModified", "trendingScore"]) {
    const found = await collect(
      hub.listModels({
        ...{ search: { tags: ["crowd"] }, sort, additionalFields: ["sha", "filePaths"], hubUrl },
      }),
    );
    assert.equal(found.length, crowd.length, sort);
    const byName = new Map(found.map((item) => [item.name, item]));
    for (const { name, commit } of crowd) {
      assert.equal(byName.get(name).sha, commit);
      assert.deepEqual(new Set(byName.get(name).filePaths), new Set(["README.md", ".gitattributes"]));
    }
  }
});

test("listDatasets and listSpaces list theirs", async () => {
  const { namespace, parquet, space } = samples;
  const datasets = await collect(hub.listDatasets({ search: { owner: namespace }, hubUrl }));
  assert.ok(names(datasets).includes(parquet.name));
  assert.ok(!names(datasets).includes(space.name));
  const spaces = await collect(hub.listSpaces({ search: { owner: namespace }, hubUrl }));
  assert.ok(names(spaces).includes(space.name));
});

test("listCommits and countCommits tell a long history", async () => {
  const { history, author } = samples;
  const at = { repo: repo(history[0]), hubUrl };
  for (const batchSize of [undefined, 10]) {
    const commits = await collect(hub.listCommits({ ...at, batchSize }));
    assert.deepEqual(commits.map((c) => c.oid), history.map((p) => p.commit).reverse());
    assert.equal(commits[0].title, `Count to ${history.length - 1}`);
    assert.equal(commits[0].authors[0].username, author);
    assert.ok(!Number.isNaN(+commits[0].date));
  }
  assert.equal(await hub.countCommits(at), history.length);
  const revision = history[9].commit;
  assert.equal(await hub.countCommits({ ...at, revision }), 10);
});
