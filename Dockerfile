# syntax=docker/dockerfile:1
# GenPercept as a server. CPU:  docker build -t genpercept .
#                         CUDA: docker build -t genpercept:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
#                               (the index of PyTorch's that fits your driver and has the version of constraints.txt)
# Run: docker run --rm -p 127.0.0.1:8000:8000 -e GENPERCEPT_API_KEY=SECRET genpercept     (CUDA: with --gpus all)
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    NUMBA_CACHE_DIR=/var/cache/numba
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH
WORKDIR /src
# torch first and alone: it is most of the size, and changes seldom. The versions are those that were tested
COPY constraints.txt ./
RUN pip install --index-url "${TORCH_INDEX}" "$(grep '^torch==' constraints.txt)"
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip install -c constraints.txt '.[serve,matting]'
# a first cut-out compiles for minutes, unless it was compiled here, for a processor of the same kind
RUN python -c "import numpy as np, pymatting; pymatting.estimate_foreground_ml(np.zeros((8, 8, 3)), np.zeros((8, 8)))"

FROM python:${PYTHON}-slim-bookworm
RUN useradd --create-home --uid 10001 genpercept
COPY --from=build /venv /venv
COPY --from=build --chown=genpercept:genpercept /var/cache/numba /var/cache/numba
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1 \
    NUMBA_CACHE_DIR=/var/cache/numba
USER genpercept
WORKDIR /home/genpercept
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["genpercept"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
