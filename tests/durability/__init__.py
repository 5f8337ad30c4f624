"""What was acknowledged is there: after SIGKILL, after a power cut, after a disk that failed.

`objects` are what is sent, `truth` says what must be found, `zygote` starts pacs processes quickly, `killing` kills
them, `calls` reads what a process asked of the kernel (strace), `volume` is a file system that loses what was not
synced, `cutting` replays a recorded run on it.
"""
