// SPDX-License-Identifier: Apache-2.0
// Who a container is to the cluster: name, labels, compose project and service, as its user gave them.
import type { Workload } from '../model/endpoint.ts'
import type { Engine, EngineContainer } from './engine.ts'

/** Asks the engine for what the image brings; that is remembered. */
export type Identity = (container: Described, aliases?: readonly string[]) => Promise<Workload>

/** What both the list of containers and the full look tell. */
export type Described = Pick<EngineContainer, 'Id' | 'Name' | 'Image' | 'Config'>

export const openIdentity = (engine: Engine): Identity => {
  const images = new Map<string, Readonly<Record<string, string>>>()
  const imageLabels = async (image: string): Promise<Readonly<Record<string, string>>> => {
    const known = images.get(image)
    if (known) return known
    const labels = await engine.imageLabels(image)
    if (images.size > 1000) images.clear()
    images.set(image, labels)
    return labels
  }
  return async (container, aliases = []) => workloadOf(container, aliases, await imageLabels(container.Image))
}

const compose = 'com.docker.compose.'
/** What an image brings may not claim to be what only the one who starts the container can say. */
const guarded = (key: string): boolean =>
  key.startsWith('weft.') || key.startsWith(compose) || key.startsWith('com.docker.swarm.')
/** Compose sets these on containers; on the images that it builds only project, service and version. */
const marks = ['config-hash', 'container-number'].map(name => compose + name)

export const workloadOf = (
  { Id, Name, Config }: Described,
  aliases: readonly string[],
  fromImage: Readonly<Record<string, string>>,
): Workload => {
  const all = Config.Labels ?? {}
  const composed = marks.some(mark => mark in all && !(mark in fromImage))
  const given = ([key, value]: [string, string]): boolean =>
    !guarded(key) || value !== fromImage[key] || (composed && key.startsWith(compose))
  const labels = Object.fromEntries(Object.entries(all).filter(given))
  const project = labels['com.docker.compose.project']
  const service = labels['weft.service'] ?? labels['com.docker.compose.service']
  return {
    container: Id,
    name: Name.replace(/^\//, ''),
    hostname: Config.Hostname,
    aliases: aliases.filter(alias => alias !== Id.slice(0, 12)),
    labels,
    ...(project === undefined ? {} : { project }),
    ...(service === undefined ? {} : { service }),
  }
}
