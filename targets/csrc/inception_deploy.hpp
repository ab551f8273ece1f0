// inception_deploy.hpp - inception_deploy.h for C++11 and newer: a model closes itself, and errors are exceptions.
//
//     inception_deploy::Model model("weights.bin");
//     std::vector<float> pixels(model.input().bytes / sizeof(float)), logits(model.output().bytes / sizeof(float));
//     model.run({pixels.data()}, {logits.data()});
#pragma once
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "inception_deploy.h"

namespace inception_deploy {
// What an id_ function returned; `code` is of inception_deploy.h.
class Error : public std::runtime_error {
 public:
  explicit Error(int number, const std::string &more = "") : std::runtime_error(id_error(number) + more), code(number) {}
  const int code;
};

// A model that is ready to run. It can be moved and not copied; one handle runs one inference at a time.
class Model {
 public:
  // threads: 0 for one per processor that the caller may run on.
  explicit Model(const std::string &weights, int threads = 0) : Model(0, weights.c_str(), 0, threads, true) {}

  // Weights that begin `offset` bytes into a file.
  Model(const std::string &file, std::uint64_t offset, int threads) : Model(0, file.c_str(), offset, threads) {}

  // A plan of the library, for another number of images; with weights that begin `offset` bytes into a file.
  static Model of_plan(std::uint32_t plan, const std::string &file, int threads = 0, std::uint64_t offset = 0) {
    return Model(plan, file.c_str(), offset, threads);
  }

  // With the weights that the library holds itself, where it was exported with --embed.
  static Model embedded(int threads = 0, std::uint32_t plan = 0) { return Model(plan, nullptr, 0, threads); }

  // One inference: a pointer per port, each to `bytes` bytes of it.
  void run(std::initializer_list<const void *> inputs, std::initializer_list<void *> outputs) {
    check(inputs.size(), outputs.size());
    done(id_run(model_.get(), inputs.begin(), outputs.begin()));
  }

  // The same with a clock; gives the seconds of every step.
  std::vector<double> profile(std::initializer_list<const void *> inputs, std::initializer_list<void *> outputs) {
    check(inputs.size(), outputs.size());
    std::vector<double> seconds(info(plan_).step_count + 1);
    done(id_profile(model_.get(), inputs.begin(), outputs.begin(), seconds.data()));
    seconds.pop_back();
    return seconds;
  }

  // Of a plan: all have as many inputs and outputs, of other sizes. `plan()` is the one that this model runs.
  static std::uint32_t plans() { return id_plans(); }
  static const id_info &info(std::uint32_t plan = 0) {
    const id_info *found = id_describe_plan(plan);
    return found ? *found : throw std::out_of_range("there is no plan of that number");
  }
  static const id_port &input(std::uint32_t number = 0, std::uint32_t plan = 0) {
    return port(info(plan).inputs, info(plan).input_count, number);
  }
  static const id_port &output(std::uint32_t number = 0, std::uint32_t plan = 0) {
    return port(info(plan).outputs, info(plan).output_count, number);
  }
  std::uint32_t plan() const { return plan_; }
  int threads() const { return id_threads(model_.get()); }

 private:
  Model(std::uint32_t plan, const char *file, std::uint64_t offset, int threads, bool to_end = false) : plan_(plan) {
    id_model *made = nullptr;
    const int code = to_end ? id_open(file, threads, &made) : id_open_plan(plan, file, offset, threads, &made);
    model_.reset(made);
    const char *missing = code == ID_ERROR_CPU ? id_missing_feature() : nullptr;
    if (code != ID_OK) throw Error(code, missing ? std::string(": ") + missing : "");
  }
  static void check(std::size_t inputs, std::size_t outputs) {
    if (inputs != info().input_count || outputs != info().output_count) throw Error(ID_ERROR_ARGUMENT, ": one pointer per port");
  }
  static const id_port &port(const id_port *ports, std::uint32_t count, std::uint32_t number) {
    return number < count ? ports[number] : throw std::out_of_range("there is no port of that number");
  }
  void done(int code) const {
    if (code == ID_ERROR_KERNEL) throw Error(code, std::string(": ") + info(plan_).steps[id_failed_step(model_.get())].name);
    if (code != ID_OK) throw Error(code);
  }

  struct Close {
    void operator()(id_model *model) const { id_close(model); }
  };
  std::unique_ptr<id_model, Close> model_;
  std::uint32_t plan_;
};

}  // namespace inception_deploy
