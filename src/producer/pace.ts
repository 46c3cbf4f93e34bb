/** Weight of the newest observation in a running mean. */
const NEWEST = 0.1;

/**
 * Whether to cut what is appended together into several groups, so that the actor writes one while the next is being
 * appended, or to let it go out as one.
 *
 * Let A be what the actor takes for a group whatever is in it, which is the sync, and B what it takes for all that is in
 * flight beside that; and M how long this thread takes to answer all of it and to append it again. One group at a
 * time needs A + B + M; two that alternate need 2 A + B, because the actor does one after the other. So cutting pays while A < M:
 * many records on a quick disk. On a slow one it would make twice as many syncs of half as much, and, once two halves
 * alternate, nothing would ever join them again.
 */
export class Pace {
  #recordMs = 0;

  /** Answering and appending so many records took this long, what the caller does in between included. */
  observe(ms: number, records: number): void {
    this.#recordMs += (ms / records - this.#recordMs) * NEWEST;
  }

  /** Whether to publish early, with so many appends in flight and an actor that waits `syncMs` for a sync. */
  cuts(inFlight: number, syncMs: number): boolean {
    return syncMs < this.#recordMs * inFlight;
  }
}
