// main.cpp - run a bundle from C++: main.c with inception_deploy.hpp.
//
//     c++ -O2 -I irv2 examples/c/main.cpp irv2/model.so -Wl,-rpath,"$PWD/irv2" -o classify
//     ./classify irv2/weights.bin input.raw
#include "inception_deploy.hpp"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <numeric>
#include <stdexcept>

static std::vector<char> content(const char *path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(std::string(path) + ": cannot be opened");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

int main(int argc, char **argv) try {
  using inception_deploy::Model;
  if (argc != 3) throw std::invalid_argument("usage: classify weights.bin input.raw");
  if (Model::info().input_count != 1 || Model::info().output_count != 1) throw std::runtime_error("one input and one output, please");

  Model model(argv[1]);
  const std::vector<char> input = content(argv[2]);
  if (input.size() != Model::input().bytes) throw std::runtime_error("the input has " + std::to_string(Model::input().bytes) + " bytes");
  std::vector<float> output(Model::output().bytes / sizeof(float));
  model.run({input.data()}, {output.data()});

  std::vector<std::size_t> order(output.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return output[a] > output[b]; });
  for (std::size_t i = 0; i < std::min<std::size_t>(5, order.size()); ++i)
    std::printf("%zu %.6g\n", order[i], static_cast<double>(output[order[i]]));
  return 0;
} catch (const std::exception &error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
