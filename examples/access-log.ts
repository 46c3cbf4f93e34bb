import { once } from 'node:events';
import fs from 'node:fs';

/** A web server's access log in combined format, the same for the same seed. */

const PAGES = [
  '/',
  '/about',
  '/blog/',
  '/blog/write-ahead-logging',
  '/blog/fsync-and-friends',
  '/contact',
  '/search?q=wal',
];
const ASSETS = ['/css/site.css', '/js/app.js', '/img/logo.png', '/img/header.jpg', '/favicon.ico', '/fonts/body.woff2'];
const REFERERS = [
  '-',
  '-',
  'https://www.example.com/',
  'https://news.example.org/item?id=42',
  'https://search.example.net/?q=durable+log',
];
const AGENTS = [
  'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0',
  'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36',
  'Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1',
  'curl/8.8.0',
  'ExampleBot/2.1 (+https://bot.example.com/about)',
];
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

export async function writeAccessLog(file: string, lines: number, seed: number): Promise<void> {
  const stream = fs.createWriteStream(file);
  const random = mulberry32(seed);
  let time = Date.UTC(2015, 4, 17, 8, 0, 0);
  let chunk: string[] = [];
  for (let i = 0; i < lines; i++) {
    time += Math.floor(random() * 400);
    chunk.push(line(random, time));
    if (chunk.length < 1000 && i < lines - 1) continue;
    if (!stream.write(chunk.join(''))) await once(stream, 'drain');
    chunk = [];
  }
  stream.end();
  await once(stream, 'close');
}

function line(random: () => number, time: number): string {
  const visitor = Math.floor(random() ** 2 * 4000);
  const address = `${20 + (visitor % 180)}.${(visitor * 7) % 256}.${(visitor * 31) % 256}.${1 + ((visitor * 13) % 254)}`;
  const asset = random() < 0.55;
  const target = asset
    ? pick(random, ASSETS)
    : random() < 0.4
      ? `/products/${Math.floor(random() * 900)}`
      : pick(random, PAGES);
  const method = !asset && random() < 0.06 ? 'POST' : 'GET';
  const chance = random();
  const status = chance < 0.86 ? 200 : chance < 0.93 ? 304 : chance < 0.96 ? 301 : chance < 0.995 ? 404 : 500;
  const bytes =
    status === 304 ? '-' : status === 200 ? Math.floor(300 + random() ** 3 * 180_000) : 162 + (visitor % 400);
  const agent = AGENTS[visitor % AGENTS.length];
  return `${address} - - [${timestamp(time)}] "${method} ${target} HTTP/1.1" ${status} ${bytes} "${pick(random, REFERERS)}" "${agent}"\n`;
}

/** `17/May/2015:08:05:32 +0000` */
function timestamp(time: number): string {
  const [date, clock] = new Date(time).toISOString().split('T');
  const [year, month, day] = date.split('-');
  return `${day}/${MONTHS[Number(month) - 1]}/${year}:${clock.slice(0, 8)} +0000`;
}

function pick<T>(random: () => number, from: readonly T[]): T {
  return from[Math.floor(random() * from.length)];
}

/** A small generator of pseudo-random numbers: the same file on every machine. */
function mulberry32(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
