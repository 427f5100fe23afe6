// SPDX-License-Identifier: Apache-2.0
// The web server that is asked: nginx, as scripts/install unpacks it into the cache.
import { existsSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'

const cacheOf = (env: NodeJS.ProcessEnv): string =>
  env['WEFT_CACHE'] ?? join(env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'weft')

/** One worker that answers each request with six octets; it keeps no files. */
const configuration = `
daemon off;
master_process off;
pid /dev/null;
error_log stderr crit;
events { worker_connections 4096; }
http {
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path /run/nginx-body;
  proxy_temp_path /run/nginx-proxy;
  fastcgi_temp_path /run/nginx-fastcgi;
  uwsgi_temp_path /run/nginx-uwsgi;
  scgi_temp_path /run/nginx-scgi;
  server {
    listen 80 backlog=4096;
    location / { return 200 "hello\\n"; }
  }
}
`

/** The command that serves on port 80 of the namespace where it runs. */
export const nginx = (): readonly string[] => {
  const dir = join(cacheOf(process.env), 'nginx')
  const program = join(dir, 'usr/sbin/nginx')
  if (!existsSync(program)) throw new Error(`${program} is not there: scripts/install bench`)
  const file = join(dir, 'weft-bench.conf')
  writeFileSync(file, configuration)
  return [program, '-c', file, '-e', 'stderr']
}
