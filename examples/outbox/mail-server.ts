import fs from 'node:fs';

/**
 * Stands for a service elsewhere that outlives us: an append-only file. It remembers which events it took, by LSN, so that
 * one that is delivered again is not sent again.
 */
export class MailServer {
  readonly #fd: number;
  readonly #taken: Set<number>;

  constructor(file: string) {
    const mails = readMails(file);
    this.#taken = new Set(mails.map(({ lsn }) => lsn));
    // A line that a kill cut short was never taken.
    if (fs.existsSync(file))
      fs.truncateSync(
        file,
        mails.reduce((bytes, { line }) => bytes + line.length + 1, 0),
      );
    this.#fd = fs.openSync(file, 'a');
  }

  /** Returns whether it is new. */
  send(lsn: number, mail: string): boolean {
    if (this.#taken.has(lsn)) return false;
    fs.writeSync(this.#fd, `${lsn} ${mail}\n`);
    this.#taken.add(lsn);
    return true;
  }
}

export interface Mail {
  lsn: number;
  mail: string;
  line: string;
}

/** What was sent, in order; a line without an end does not count. */
export function readMails(file: string): Mail[] {
  if (!fs.existsSync(file)) return [];
  const lines = fs.readFileSync(file, 'latin1').split('\n').slice(0, -1);
  return lines.map((line) => {
    const [lsn] = line.split(' ', 1);
    return { lsn: Number(lsn), mail: line.slice(lsn.length + 1), line };
  });
}
