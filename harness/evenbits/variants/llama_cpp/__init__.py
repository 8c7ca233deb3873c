"""llama.cpp: GGUF files scored by the engine that runs them, in a process of its own.

`library` binds the shared library, `child` answers over a pipe, `engine` is what the rest of evenbits talks to.
"""
