// SPDX-License-Identifier: Apache-2.0
// Which files of a folder come and go. A host full of containers may have no inotify instance left: then it is looked
// at every second.
import { type FSWatcher, watch } from 'node:fs'
import { describe } from '../base/errors.ts'
import type { Log } from '../base/log.ts'

export interface FolderWatch {
  close(): void
}

const everyMs = 1000

/** Tells names that may have come or gone; without inotify, each of `names` every second. */
export const watchFolder = (
  folder: string,
  names: () => Iterable<string>,
  onName: (name: string) => void,
  log: Log,
): FolderWatch => {
  let watcher: FSWatcher | undefined
  let timer: NodeJS.Timeout | undefined
  let closed = false
  const without = (error: unknown): void => {
    watcher?.close()
    if (closed || timer) return
    log.warn(
      { err: describe(error) },
      `${folder} is looked at every second: raise fs.inotify.max_user_instances (128 by default) and max_user_watches with sysctl, then restart weftd`,
    )
    timer = setInterval(() => {
      for (const name of names()) onName(name)
    }, everyMs).unref()
  }
  try {
    watcher = watch(folder, { persistent: false }, (_, name) => name === null || onName(name))
    watcher.on('error', without)
  } catch (error) {
    without(error)
  }
  return {
    close() {
      closed = true
      watcher?.close()
      clearInterval(timer)
    },
  }
}
