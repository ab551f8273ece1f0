# docker build -t inception-deploy .                      exports, tunes, verifies: everything
# docker build --target run -t inception-deploy:run .     runs bundles: numpy, Pillow and rich
#
# docker run --rm -u "$(id -u)" -v "$PWD:/work" inception-deploy export --model resnet50 -o resnet50-cpu
# Compiled kernels and zig's library are kept between runs with -v inception-deploy-cache:/cache
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps -w /wheel .

FROM python:${PYTHON}-slim AS run
COPY --from=wheel /wheel /wheel
COPY constraints.txt /wheel/
RUN pip install --no-cache-dir -c /wheel/constraints.txt /wheel/*.whl
# Whoever runs it may write its caches, and has no home here.
ENV HOME=/tmp XDG_CACHE_HOME=/cache
RUN mkdir -m 1777 /cache
VOLUME /cache
WORKDIR /work
ENTRYPOINT ["inception-deploy"]
CMD ["--help"]

FROM run AS build
# The CPU build of torch: the one for GPUs is gigabytes larger, and nothing here uses it.
RUN pip install --no-cache-dir -c /wheel/constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu \
        "$(ls /wheel/*.whl)[build]"
