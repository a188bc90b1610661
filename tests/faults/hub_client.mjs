// @huggingface/hub in a process of its own: a JSON line for each call, a JSON line for its answer.
//
// It is started by `hub.JsClient`. The library is the pinned one that tests/run keeps in $CAIRN_TEST_NODE.

import { createRequire } from "node:module";
import path from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const hub = createRequire(path.join(process.env.CAIRN_TEST_NODE, "package.json"))("@huggingface/hub");

const [hubUrl, accessToken] = process.argv.slice(2);

// Tries of a writer that names the parent it has seen, until it is the first once more.
const TRIES_MAX = 500;

/** A file of an upload, or an operation of a commit: `add` a local file, `text`, or `delete`. */
function operation([kind, name, more]) {
  if (kind === "delete") return { operation: "delete", path: name };
  const content = kind === "add" ? pathToFileURL(more) : new Blob([more]);
  return { operation: "addOrUpdate", path: name, content };
}

/** Calls a function of the library; what comes of a commit is its id. */
async function call(method, { operations, files, ...more }) {
  const given = {
    ...(operations && { operations: operations.map(operation) }),
    ...(files && { files: files.map(operation) }),
  };
  const done = await hub[method]({ ...more, ...given, accessToken, hubUrl });
  return done?.commit?.oid ?? done ?? null;
}

/** Makes so many commits to one branch, each of a text and a binary file of its own. */
async function write(repo, name, count, isStrict, answers) {
  for (let number = 0; number < count; number += 1) {
    const [file, text] = [`${name}/${number}.txt`, `${name} wrote ${number}`];
    const operations = [
      ["text", file, text],
      ["text", `${name}/${number}.bin`, `\0${text}`],
    ];
    let isDone = false;
    for (let tries = 0; !isDone && tries < TRIES_MAX; tries += 1) {
      try {
        let parentCommit;
        if (isStrict) {
          const about = { name: repo, additionalFields: ["sha"], accessToken, hubUrl };
          parentCommit = (await hub.modelInfo(about)).sha;
        }
        const commit = await call("commit", { repo, title: file, operations, parentCommit });
        answers.push({ status: 200, commit, path: file });
        isDone = true;
      } catch (error) {
        answers.push({ status: error.statusCode ?? 0, text: `${error}` });
        if (!isStrict || error.statusCode !== 412) return;
      }
    }
    if (!isDone) {
      answers.push({ status: 0, text: `${name} was never the first in ${TRIES_MAX} tries` });
      return;
    }
  }
}

/** What so many writers at once were answered. */
async function writers({ repo, names, count, is_strict: isStrict }) {
  const answers = [];
  await Promise.all(names.map((name) => write(repo, name, count, isStrict, answers)));
  return answers;
}

for await (const line of createInterface({ input: process.stdin })) {
  const [method, given] = JSON.parse(line);
  let answer;
  try {
    answer = { result: await (method === "writers" ? writers(given) : call(method, given)) };
  } catch (error) {
    answer = { error: `${error}`, status: error.statusCode ?? 0 };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
