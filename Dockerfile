# docker build -t diffinst .                           CPU image
# docker build -t diffinst:cuda --target cuda .        the same with CUDA (needs the NVIDIA container toolkit)
# docker run --rm -v "$PWD:/data" diffinst predict my_images --out runs/a
#     (its user is number 1000, who has to be allowed to write into the folder)
# docker run --rm -p 8765:8765 -v "$PWD:/data" diffinst serve --host 0.0.0.0
FROM python:3.12-slim AS wheel
COPY . /source
RUN pip install --no-cache-dir build && python -m build --wheel --outdir /dist /source

FROM python:3.12-slim AS base
RUN useradd --create-home diffinst
ENV DIFFINST_CACHE=/home/diffinst/.cache/diffinst
WORKDIR /data

FROM base AS cuda
RUN --mount=from=wheel,source=/dist,target=/dist pip install --no-cache-dir "$(echo /dist/*.whl)[serve]"
USER diffinst
ENTRYPOINT ["diffinst"]
CMD ["--help"]

FROM base AS cpu
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu
RUN --mount=from=wheel,source=/dist,target=/dist pip install --no-cache-dir "$(echo /dist/*.whl)[serve]"
USER diffinst
ENTRYPOINT ["diffinst"]
CMD ["--help"]
