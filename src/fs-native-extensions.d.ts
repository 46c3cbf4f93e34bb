declare module 'fs-native-extensions' {
  /** Takes the lock of a whole file for the open file behind `fd`; false when another open file has it. */
  export function tryLock(fd: number): boolean;
}
