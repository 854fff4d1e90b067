# preflight as an image: `serve` by default, `check` and all else as arguments.
# How to run it, and what it may do: docs/container.md.
#
# BASE needs python3 3.11 or newer with venv; both stages use the same one, because the
# environment made in the first refers to the interpreter by its path.
ARG BASE=docker.io/library/python:3.12-slim

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/preflight

# The dependencies change less often than the source: they get a layer of their own.
COPY pyproject.toml constraints.txt ./
RUN /opt/build/bin/pip install --quiet -c constraints.txt hatchling \
 && /opt/build/bin/python -c 'import tomllib; \
      print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
      > dependencies.txt \
 && /opt/build/bin/pip --python /opt/preflight/bin/python install --quiet \
      -c constraints.txt -r dependencies.txt

COPY README.md LICENSE ./
COPY profiles profiles
COPY src src
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist . \
 && /opt/build/bin/pip --python /opt/preflight/bin/python install --quiet --no-deps dist/*.whl \
 && /opt/preflight/bin/preflight --help > /dev/null

FROM ${BASE}
COPY --from=build /opt/preflight /opt/preflight
# PYTHONDONTWRITEBYTECODE: the image also runs with a read-only root.
ENV PATH=/opt/preflight/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# A number, not a name: Kubernetes' runAsNonRoot can check it, and no user has to be made.
USER 10888:10888
WORKDIR /run/preflight
EXPOSE 10888/tcp
ENTRYPOINT ["preflight"]
CMD ["serve"]
