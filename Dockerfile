# One image for every part: `fma web`, `fma worker`, `fma manage migrate`, or `fma serve` for all of it in one container.
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY fma_core fma_core
COPY fma_django fma_django
COPY fma_api fma_api
COPY fma_connect fma_connect
RUN python -m venv /opt/fma \
    && /opt/fma/bin/pip install --no-cache-dir '.[server,oidc,postgres,s3,redis,dask]'

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /data fma && install -d -o fma -g fma -m 0700 /data
COPY --from=build /opt/fma /opt/fma
ENV PATH=/opt/fma/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FMA_DATA_DIR=/data \
    FMA_LOG_FORMAT=json
USER fma
WORKDIR /data
VOLUME /data
EXPOSE 8000
ENTRYPOINT ["fma"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
