// SPDX-License-Identifier: Apache-2.0
// Small state files of this host: written whole, durable before the call returns, never seen half-written.
import { mkdir, open, readFile, rename } from 'node:fs/promises'
import { dirname } from 'node:path'
import { WeftError } from './errors.ts'

/** Mode 0600; the folder is made if missing. */
export const writeDurably = async (path: string, text: string): Promise<void> => {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  const temporary = `${path}.new`
  const file = await open(temporary, 'w', 0o600)
  try {
    await file.writeFile(text)
    await file.sync()
  } finally {
    await file.close()
  }
  await rename(temporary, path)
  const folder = await open(dirname(path), 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

/** undefined when there is no such file. */
export const readIfPresent = async (path: string): Promise<string | undefined> => {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

/** A JSON file of ours; undefined when there is none. Throws INTERNAL naming file and remedy when `shape` refuses it. */
export const readState = async <T>(
  path: string,
  remedy: string,
  shape: (json: unknown) => json is T,
): Promise<T | undefined> => {
  const text = await readIfPresent(path)
  if (text === undefined) return undefined
  try {
    const json: unknown = JSON.parse(text)
    if (shape(json)) return json
  } catch {
    // the same as a wrong shape
  }
  throw new WeftError('INTERNAL', `${path} is damaged: ${remedy}`)
}

/** [["key", "value"], …] */
export const isPairs = (json: unknown): json is [string, string][] =>
  Array.isArray(json) &&
  json.every(pair => Array.isArray(pair) && pair.length === 2 && pair.every(text => typeof text === 'string'))
