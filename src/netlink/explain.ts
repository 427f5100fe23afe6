// SPDX-License-Identifier: Apache-2.0
// Which attribute of our request an error means. The kernel gives an offset from the start of the message; we walk
// down our own bytes to it and name the way.
import { attributes, Bytes } from './message.ts'
import { NLMSG_HDRLEN } from './uapi.ts'

/** Names by attribute number; a container also names what is inside. */
export interface NameTable {
  readonly [type: number]: string | readonly [name: string, inside: NameTable]
}

export interface AttributeNames {
  /** Size of the family's header behind the nlmsghdr. */
  readonly header: number
  readonly table: NameTable
}

/** "IFLA_LINKINFO.IFLA_INFO_DATA.2"; empty if the offset is not inside an attribute. Never throws. */
export const attributePath = (message: Buffer, offset: number, names: AttributeNames | undefined): string => {
  if (names === undefined) return ''
  const path: string[] = []
  let table: NameTable | undefined = names.table
  let within = new Bytes(message, 0, message.length)
  let from = NLMSG_HDRLEN + names.header
  try {
    for (;;) {
      let inside: Bytes | undefined
      for (const attr of attributes(within, from)) {
        if (offset < attr.start - 4 || offset >= attr.end) continue
        const entry: NameTable[number] | undefined = table?.[attr.type]
        path.push(entry === undefined ? String(attr.type) : typeof entry === 'string' ? entry : entry[0])
        if (offset === attr.start - 4) return path.join('.')
        inside = attr
        table = typeof entry === 'object' ? entry[1] : undefined
        break
      }
      if (inside === undefined) return path.join('.')
      within = inside
      from = 0
    }
  } catch {
    return path.join('.')
  }
}

/** From constants such as { IFLA_MTU: 4 } to names by number; `inside` gives the containers their own. */
export const nameTable = (
  constants: Readonly<Record<string, number>>,
  inside: Readonly<Record<string, NameTable>> = {},
): NameTable =>
  Object.fromEntries(
    Object.entries(constants).map(([name, value]) => {
      const nested = inside[name]
      return [value, nested === undefined ? name : ([name, nested] as const)]
    }),
  )
