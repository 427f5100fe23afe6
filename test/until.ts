// SPDX-License-Identifier: Apache-2.0
// Waiting for what becomes true by itself.

/** Whether `is` was true within so many ms: asked at once, then every few ms. */
export const until = async (is: () => boolean | Promise<boolean>, ms = 20_000): Promise<boolean> => {
  for (const end = Date.now() + ms; ; ) {
    if (await is()) return true
    if (Date.now() > end) return false
    await new Promise(resolve => setTimeout(resolve, 10))
  }
}
