"""Run the pretend cloud: `python -m simulator.cloud`."""

from simulator.cloud.programme import main

if __name__ == "__main__":
    main()
