# Serves the folder of a run over HTTP:
#   docker build -t flatcoat .
#   docker run -p 8080:8080 -v "$PWD/runs/mine:/run-folder" -v "$PWD/keys.toml:/keys.toml:ro" flatcoat
# Every version is of constraints.txt; to pin the base image to the byte, pass --build-arg BASE=python@sha256:...
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv /opt/flatcoat
WORKDIR /src
COPY constraints.txt ./
# torch without CUDA; the rest then finds it there
RUN /opt/flatcoat/bin/pip install --no-deps -c constraints.txt --index-url https://download.pytorch.org/whl/cpu torch
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN /opt/flatcoat/bin/pip install -c constraints.txt ".[serve,search]"

FROM ${BASE}
RUN useradd --create-home --uid 10001 --user-group flatcoat
COPY --from=build /opt/flatcoat /opt/flatcoat
# compiled kernels are kept where the user may write
ENV PATH=/opt/flatcoat/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 NUMBA_CACHE_DIR=/home/flatcoat/.cache/numba
USER flatcoat
WORKDIR /home/flatcoat
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=4)"]
CMD ["flatcoat", "serve", "/run-folder", "--host", "0.0.0.0", "--port", "8080", "--keys", "/keys.toml"]
