// SPDX-License-Identifier: Apache-2.0
// Builds native/build/Release/weft_netlink.node with the headers of the Node that runs this: `npm ci` and
// `node native/build.mjs` never ask the network. Needs a C++17 compiler, make and python3.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const candidates = [process.env.WEFT_NODE_ROOT, dirname(dirname(process.execPath)), '/usr']
const root = candidates.find(dir => dir && existsSync(join(dir, 'include/node/node_api.h')))
if (!root) {
  console.error(`weft: no Node headers below ${candidates.filter(Boolean).join(', ')}: run ". scripts/env" first, or apt-get install libnode-dev`)
  process.exit(1)
}
const nodeGyp = join(dirname(createRequire(import.meta.url).resolve('node-gyp/package.json')), 'bin/node-gyp.js')
const run = spawnSync(process.execPath, [nodeGyp, 'rebuild', `--nodedir=${root}`, '--loglevel=error'], { cwd: here, stdio: 'inherit' })
process.exit(run.status ?? 1)
