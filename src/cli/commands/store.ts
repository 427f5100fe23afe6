// SPDX-License-Identifier: Apache-2.0
// weft store: accept, export, import.
import { createReadStream } from 'node:fs'
import { open } from 'node:fs/promises'
import { createInterface } from 'node:readline/promises'
import type { Command } from 'commander'
import type { Record } from '../../api/gen/weft.ts'
import { WeftError } from '../../base/errors.ts'
import type { Cli } from '../context.ts'

/** First line of an export. */
const head = { weft: 'store', v: 1 }

export const storeCommand = (program: Command, cli: Cli): void => {
  const store = program.command('store').description('where the cluster is kept')
  store
    .command('accept')
    .description('believe a store that was found emptied, restored or swapped (see weft status)')
    .action(async () => {
      const { idle } = await cli.api().call(client => client.acceptStore, {})
      cli.print(idle ? 'nothing to accept: the store is not in doubt here\n' : 'accepted\n')
    })
  store
    .command('export <file>')
    .description('write all records into a new file, a JSON line each; - is the standard output')
    .action(async (path: string) => {
      const file = path === '-' ? undefined : await open(path, 'wx', 0o600).catch(unwritable(path))
      const write = async (line: object): Promise<void> => {
        const text = `${JSON.stringify(line)}\n`
        if (file) await file.appendFile(text)
        else cli.print(text)
      }
      let count = 0
      try {
        await write(head)
        for await (const { key, value } of cli.api().exportStore()) {
          await write({ key, value })
          count++
        }
        await file?.sync()
      } finally {
        await file?.close()
      }
      if (file) cli.print(`${count} records exported to ${path}\n`)
    })
  store
    .command('import <file>')
    .description('fill an empty store with an export: how a host moves from the embedded store to etcd')
    .action(async (path: string) => {
      const { records } = await cli.api().importStore(await readExport(path))
      cli.print(`${records} records imported\n`)
    })
}

const unwritable = (path: string) => (cause: Error & { code?: string }) => {
  const why = cause.code === 'EEXIST' ? 'it is there already' : cause.message
  throw new WeftError('INVALID', `${path} is not written: ${why}`)
}

const readExport = async (path: string): Promise<Record[]> => {
  const records: Record[] = []
  let number = 0
  const bad = (why: string): WeftError => new WeftError('INVALID', `${path} line ${number}: ${why}`)
  const stream = createReadStream(path)
  const lines = createInterface({ input: stream, crlfDelay: Infinity })
  try {
    for await (const line of lines) {
      number++
      const value = parse(line)
      if (number === 1) {
        if (value?.['weft'] !== head.weft || value['v'] !== head.v) throw bad('this is no export of weft store export')
      } else if (typeof value?.['key'] === 'string' && typeof value['value'] === 'string')
        records.push({ key: value['key'], value: value['value'] })
      else throw bad('no record: the file is damaged')
    }
  } catch (error) {
    if (error instanceof WeftError) throw error
    throw new WeftError('INVALID', `${path} cannot be read: ${(error as Error).message}`)
  } finally {
    stream.close()
  }
  if (number === 0) throw bad('the file is empty')
  return records
}

const parse = (line: string): { [name: string]: unknown } | undefined => {
  try {
    const value: unknown = JSON.parse(line)
    return typeof value === 'object' && value !== null ? (value as { [name: string]: unknown }) : undefined
  } catch {
    return undefined
  }
}
