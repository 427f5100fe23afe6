// SPDX-License-Identifier: Apache-2.0
// The client certificate for etcd: checked when it is read, and again when a handshake fails, so that the error names
// the file and what is wrong with it. Files that were replaced meanwhile are taken then.
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, WeftError } from '../base/errors.ts'

/** Paths of PEM files. */
export interface TlsFiles {
  readonly ca: string
  readonly cert: string
  readonly key: string
}

export interface TlsContent {
  readonly rootCertificate: Buffer
  readonly certChain: Buffer
  readonly privateKey: Buffer
}

/** Throws INVALID, naming flag and file, for one that is missing, unreadable, out of its time, or does not fit. */
export const readTls = ({ ca, cert, key }: TlsFiles, nowMs: number): TlsContent => {
  const rootCertificate = read('--etcd-ca', ca)
  const certChain = read('--etcd-cert', cert)
  const privateKey = read('--etcd-key', key)
  certificate('--etcd-ca', ca, rootCertificate, nowMs)
  const leaf = certificate('--etcd-cert', cert, certChain, nowMs)
  try {
    if (!leaf.checkPrivateKey(createPrivateKey(privateKey))) throw new Error(`it does not belong to ${cert}`)
  } catch (cause) {
    throw new WeftError('INVALID', `--etcd-key ${key} is no usable key`, { cause })
  }
  return { rootCertificate, certChain, privateKey }
}

export interface TlsReader {
  /** As last read, and usable then. */
  readonly content: TlsContent
  /** Reads them again; undefined: they are the same, or cannot be used as they are now. */
  renewed(): TlsContent | undefined
}

/** Throws as readTls does. */
export const openTls = (files: TlsFiles, nowMs: () => number): TlsReader => {
  let content = readTls(files, nowMs())
  return {
    get content() {
      return content
    },
    renewed() {
      let found: TlsContent
      try {
        found = readTls(files, nowMs())
      } catch {
        return undefined // half replaced; a handshake that fails for it names the file (tlsTrouble)
      }
      const same = (['rootCertificate', 'certChain', 'privateKey'] as const).every(part =>
        found[part].equals(content[part]),
      )
      if (same) return undefined
      content = found
      return content
    },
  }
}

const read = (flag: string, path: string): Buffer => {
  try {
    return readFileSync(path)
  } catch (cause) {
    throw new WeftError('INVALID', `${flag} ${path} cannot be read`, { cause })
  }
}

const certificate = (flag: string, path: string, pem: Buffer, nowMs: number): X509Certificate => {
  try {
    const found = new X509Certificate(pem)
    if (Date.parse(found.validTo) < nowMs) throw new Error(`it expired on ${found.validTo}`)
    if (Date.parse(found.validFrom) > nowMs) throw new Error(`it is not valid before ${found.validFrom}`)
    return found
  } catch (cause) {
    throw new WeftError('INVALID', `${flag} ${path} is no usable certificate`, { cause })
  }
}

/** INVALID, saying which file a failed connection is about; undefined: none of them. */
export const tlsTrouble = (files: TlsFiles, cause: unknown, nowMs: number): WeftError | undefined => {
  const what = troubleIn(files, describe(cause), nowMs)
  return what === undefined ? undefined : new WeftError('INVALID', what)
}

const troubleIn = (files: TlsFiles, text: string, nowMs: number): string | undefined => {
  if (/wrong version number|packet length too long/i.test(text)) return 'the server speaks no TLS: use http://'
  const names = /altnames: ([^(]*)/i.exec(text)
  if (names)
    return `the server's certificate is for another name: ${names[1]!.replace(/\. Resolution note.*/, '').trim()}`
  if (/alert|EPROTO|certificate required/i.test(text)) return refused(files, nowMs)
  if (/self-signed|self signed|local issuer|unable to verify|signature failure|unknown ca/i.test(text))
    return `--etcd-ca ${files.ca} did not sign the server's certificate`
  if (/has expired|not yet valid/i.test(text)) return "the server's certificate is out of its time"
  return undefined
}

const refused = (files: TlsFiles, nowMs: number): string => {
  try {
    readTls(files, nowMs)
    return `the server refuses --etcd-cert ${files.cert}: it is signed by an authority that the server does not trust`
  } catch (error) {
    return describe(error)
  }
}
