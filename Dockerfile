# docker build -t lit-mm . && docker run --name demo lit-mm && docker cp demo:/home/user/lit-mm/runs .
# On a GPU, with NVIDIA's container toolkit:
# docker run --gpus all lit-mm .venv/bin/lit-mm fit --config configs/tiny.yaml --trainer configs/trainer/gpu.yaml
FROM python:3.12-slim AS base
# g++ is for --model.parallelize.compile true on a CPU
RUN apt-get update && apt-get install --yes --no-install-recommends make git g++ && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 user
USER user
# What WORKDIR or a mounted cache makes would belong to root.
RUN mkdir /home/user/.cache /home/user/lit-mm
WORKDIR /home/user/lit-mm

FROM base
COPY --chown=user . .
RUN --mount=type=cache,target=/home/user/.cache/pip,uid=1000,gid=1000 make environment
RUN make lab-data
CMD ["make", "demo"]
