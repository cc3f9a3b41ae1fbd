"""Only what pyproject.toml cannot say: the compiled part is optional, the library works without a compiler."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "mltools._scan",
            ["mltools/_scan.c"],
            # No fused multiply-add: the compiled part gives the same bits as its numpy twin.
            extra_compile_args=["-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"],
            optional=True,
        )
    ]
)
