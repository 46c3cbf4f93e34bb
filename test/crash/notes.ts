import fs from 'node:fs';
import type { Durability } from 'ringwal';

/**
 * What a process notes in files before it is killed: one line each, by writes that survive its death. Each thread has
 * a file of its own. Eras order what different threads noted: the number is even while nothing is being cut off the
 * log, and odd during `truncateAfter`.
 */
export interface Acknowledgement {
  lsn: number;
  level: Durability;
  /** The era before the append was called, and the one after it was acknowledged. */
  from: number;
  to: number;
  label: string;
}

/** What the opening thread notes of everything else, in this order. */
export interface Event {
  what: 'checkpointing' | 'checkpointed' | 'cutting' | 'cut' | 'subscribed' | 'asked' | 'acknowledged' | 'closed';
  lsn: number;
}

export class NoteBook {
  readonly #fd: number;

  constructor(file: string) {
    this.#fd = fs.openSync(file, 'a');
  }

  acknowledgement({ lsn, level, from, to, label }: Acknowledgement): void {
    fs.writeSync(this.#fd, `+ ${lsn} ${level} ${from} ${to} ${label}\n`);
  }

  event(what: Event['what'], lsn: number): void {
    fs.writeSync(this.#fd, `${what} ${lsn}\n`);
  }
}

export interface Notes {
  acknowledgements: Acknowledgement[];
  events: Event[];
}

export function readNotes(files: readonly string[]): Notes {
  const notes: Notes = { acknowledgements: [], events: [] };
  for (const file of files.filter((name) => fs.existsSync(name))) {
    const lines = fs.readFileSync(file, 'utf8').split('\n');
    // The kill may have cut the last one short: nobody ever read it.
    lines.pop();
    for (const line of lines) {
      const [what, lsn, level, from, to, label] = line.split(' ');
      if (what !== '+') notes.events.push({ what: what as Event['what'], lsn: Number(lsn) });
      else {
        notes.acknowledgements.push({
          lsn: Number(lsn),
          level: level as Durability,
          from: Number(from),
          to: Number(to),
          label,
        });
      }
    }
  }
  return notes;
}
