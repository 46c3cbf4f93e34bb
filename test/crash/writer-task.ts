/** What a writer process is told; see writer.ts. */
export interface WriterTask {
  directory: string;
  /** Threads write to `notes.0`, `notes.1` and so on; the last one says everything that is not an append. */
  notes: string;
  seed: number;
  round: number;
}

/** Threads that append, the opening one among them. */
export const PRODUCERS = 3;
