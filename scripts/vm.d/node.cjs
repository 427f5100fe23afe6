// SPDX-License-Identifier: Apache-2.0
// For every Node in the VM: no WebAssembly. What Node strips types with is some, and under emulation V8 runs into code it
// has freed, or finds its book of code pages wrong: up to half of the starts end so on a busy machine, none without. The
// stripped text comes from before the start (strip.cjs); what is not there, Node strips itself.
const { createHash } = require('node:crypto')
const { readFileSync } = require('node:fs')
const { registerHooks } = require('node:module')
const { fileURLToPath } = require('node:url')

require('node:v8').setFlagsFromString('--liftoff-only')
const folder = process.env.WEFT_STRIPPED
registerHooks({
  load(url, context, next) {
    if (!folder || !url.startsWith('file:') || !url.endsWith('.ts')) return next(url, context)
    try {
      const source = readFileSync(fileURLToPath(url), 'utf8')
      const stripped = readFileSync(`${folder}/${createHash('sha1').update(source).digest('hex')}`, 'utf8')
      return { format: 'module', source: stripped, shortCircuit: true }
    } catch {
      return next(url, context)
    }
  },
})
