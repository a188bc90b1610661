// The pinned @huggingface/hub of $CAIRN_TEST_NODE, and what with_samples.py published.

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const modules = path.join(process.env.CAIRN_TEST_NODE, "package.json");

export const hub = createRequire(modules)("@huggingface/hub");

// The library reads no HF_ENDPOINT: every call is told.
export const hubUrl = process.env.HF_ENDPOINT;

export const samples = JSON.parse(readFileSync(process.env.CAIRN_TEST_SAMPLES, "utf8"));

export const repo = (sample) => ({ type: sample.type, name: sample.name });

export const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

export async function collect(generator) {
  const items = [];
  for await (const item of generator) items.push(item);
  return items;
}
