"""The commands of the command line, one module each: its name is the command's, its docstring the help.

What belongs here: ``add_arguments(parser)`` and ``run(options, opened)``, which asks the core and prints. What does not: any
work that Python users would want as well; that is a function of the core.
"""
