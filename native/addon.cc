// SPDX-License-Identifier: Apache-2.0
// What JavaScript sees (typed in src/netlink/addon.ts). Plain Node-API, no C++ wrapper: while a worker thread is being
// terminated any call into JavaScript may fail, and the wrappers abort the process then. Here such failures are ignored.
// No function throws for what the system refuses: promises resolve to { errno, syscall, ... }.
#include <node_api.h>

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>

#include "netns.h"
#include "socket.h"

namespace weft {
namespace {

using Closure = std::function<void(napi_env)>;

// A short-lived thread and what it does; or a socket and who waits for its end.
struct Task {
  Thread thread;
};
struct Open {
  std::shared_ptr<Socket> socket;
  napi_ref on_events = nullptr;
  std::vector<napi_deferred> closing;
};

/** One per environment (main thread or worker). Everything but Post is for the environment's thread. */
struct Addon {
  napi_env env;
  napi_threadsafe_function queue = nullptr;
  uint32_t pending = 0;  // promises not settled and event sockets open: these keep the process alive
  std::list<Task> tasks;
  std::unordered_map<uint32_t, Open> sockets;
  uint32_t next_id = 1;

  void Post(Closure closure) {
    Closure* copy = new Closure(std::move(closure));
    if (napi_call_threadsafe_function(queue, copy, napi_tsfn_nonblocking) != napi_ok) delete copy;
  }
  void Hold() {
    if (pending++ == 0) napi_ref_threadsafe_function(env, queue);
  }
  void Release() {
    if (--pending == 0) napi_unref_threadsafe_function(env, queue);
  }
};

napi_value Number(napi_env env, double value) {
  napi_value out = nullptr;
  napi_create_double(env, value, &out);
  return out;
}
napi_value String(napi_env env, const std::string& value) {
  napi_value out = nullptr;
  napi_create_string_utf8(env, value.data(), value.size(), &out);
  return out;
}
napi_value Boolean(napi_env env, bool value) {
  napi_value out = nullptr;
  napi_get_boolean(env, value, &out);
  return out;
}
napi_value Undefined(napi_env env) {
  napi_value out = nullptr;
  napi_get_undefined(env, &out);
  return out;
}
napi_value Bytes(napi_env env, std::vector<uint8_t> data) {
  napi_value out = nullptr;
  if (data.size() > 4096) {
    auto* kept = new std::vector<uint8_t>(std::move(data));
    auto drop = [](napi_env, void*, void* hint) { delete static_cast<std::vector<uint8_t>*>(hint); };
    if (napi_create_external_buffer(env, kept->size(), kept->data(), drop, kept, &out) == napi_ok) return out;
    data = std::move(*kept);
    delete kept;
  }
  napi_create_buffer_copy(env, data.size(), data.data(), nullptr, &out);
  return out;
}
void Set(napi_env env, napi_value object, const char* name, napi_value value) {
  napi_set_named_property(env, object, name, value);
}
napi_value Outcome(napi_env env, const Failure& failure) {
  napi_value out = nullptr;
  napi_create_object(env, &out);
  Set(env, out, "errno", Number(env, failure.code));
  Set(env, out, "syscall", String(env, failure.call));
  return out;
}

// Arguments. addon.ts is the only caller and typed; what is missing or of another type reads as 0, "" or false.
struct Arguments {
  napi_env env;
  size_t count = 5;
  napi_value values[5] = {};
  Addon* addon = nullptr;
  Arguments(napi_env e, napi_callback_info info) : env(e) {
    napi_get_cb_info(env, info, &count, values, nullptr, nullptr);
    napi_get_instance_data(env, reinterpret_cast<void**>(&addon));
  }
  double Double(size_t index) const { return ToDouble(values[index]); }
  std::string Text(size_t index) const { return ToText(values[index]); }
  napi_value Field(const char* name) const {
    napi_value out = nullptr;
    napi_get_named_property(env, values[0], name, &out);
    return out;
  }
  double ToDouble(napi_value value) const {
    double out = 0;
    napi_get_value_double(env, value, &out);
    return out;
  }
  bool ToBool(napi_value value) const {
    bool out = false;
    napi_get_value_bool(env, value, &out);
    return out;
  }
  std::string ToText(napi_value value) const {
    size_t length = 0;
    if (napi_get_value_string_utf8(env, value, nullptr, 0, &length) != napi_ok) return "";
    std::string out(length, '\0');
    napi_get_value_string_utf8(env, value, out.data(), length + 1, &length);
    return out;
  }
};

napi_value Promise(napi_env env, napi_deferred* deferred) {
  napi_value out = nullptr;
  napi_create_promise(env, deferred, &out);
  return out;
}

// Work runs on a thread of its own; its string or number, with the failure, is what the promise resolves to.
struct Answer {
  Failure failure;
  std::string text;
  int number = 0;
};
napi_value RunTask(const Arguments& arguments, std::function<void(Answer*)> work) {
  Addon* addon = arguments.addon;
  napi_deferred deferred;
  napi_value promise = Promise(arguments.env, &deferred);
  addon->Hold();
  auto task = addon->tasks.emplace(addon->tasks.end());
  auto answer = std::make_shared<Answer>();
  auto settle = [addon, deferred, task, answer](napi_env env) {
    task->thread.Join();
    addon->tasks.erase(task);
    addon->Release();
    napi_value out = Outcome(env, answer->failure);
    Set(env, out, "text", String(env, answer->text));
    Set(env, out, "number", Number(env, answer->number));
    napi_resolve_deferred(env, deferred, out);
  };
  int code = task->thread.Start([addon, work = std::move(work), answer, settle] {
    work(answer.get());
    addon->Post(settle);
  });
  if (code != 0) {
    answer->failure = {code, "pthread_create"};
    settle(arguments.env);
  }
  return promise;
}

// work(Answer*) inside the namespace named by the first argument.
template <typename Work>
napi_value RunInside(const Arguments& arguments, Work work) {
  return RunTask(arguments, [path = arguments.Text(0), work](Answer* answer) {
    answer->failure = EnterNetns(path);
    if (!answer->failure) answer->failure = work(answer);
  });
}

napi_value NetnsCreate(napi_env env, napi_callback_info info) {
  Arguments in(env, info);
  return RunTask(in, [path = in.Text(0)](Answer* answer) { answer->failure = CreateNetns(path); });
}
napi_value NetnsDelete(napi_env env, napi_callback_info info) {
  Arguments in(env, info);
  return RunTask(in, [path = in.Text(0)](Answer* answer) { answer->failure = DeleteNetns(path); });
}
napi_value NetnsOpenFd(napi_env env, napi_callback_info info) {
  Arguments in(env, info);
  return RunTask(in, [path = in.Text(0)](Answer* answer) {
    Fd fd;
    answer->failure = OpenNetns(path, &fd);
    answer->number = fd.Release();
  });
}
napi_value NetnsInode(napi_env env, napi_callback_info info) {
  Arguments in(env, info);
  return RunTask(in, [path = in.Text(0)](Answer* answer) { answer->failure = IdentifyNetns(path, &answer->text); });
}
napi_value NetnsRead(napi_env env, napi_callback_info info) {
  Arguments in(env, info);
  return RunInside(in, [file = in.Text(1)](Answer* answer) { return ReadFile(file, &answer->text); });
}
napi_value NetnsWrite(napi_env env, napi_callback_info info) {
  Arguments in(env, info);
  return RunInside(in, [file = in.Text(1), text = in.Text(2)](Answer*) { return WriteFile(file, text); });
}
// netnsSocket(netns, address, port, type bits: ipv6 1, tcp 2, transparent 4, reuseAddr 8, freebind 16, held 32, ping 64,
//             unbound 128)
napi_value NetnsSocket(napi_env env, napi_callback_info info) {
  Arguments in(env, info);
  SocketRequest want;
  want.address = in.Text(1);
  want.port = static_cast<uint16_t>(in.Double(2));
  const unsigned bits = static_cast<unsigned>(in.Double(3));
  want.ipv6 = bits & 1;
  want.tcp = bits & 2;
  want.transparent = bits & 4;
  want.reuse_addr = bits & 8;
  want.freebind = bits & 16;
  want.held = bits & 32;
  want.ping = bits & 64;
  want.unbound = bits & 128;
  return RunInside(in, [want](Answer* answer) {
    Fd fd;
    Failure failure = BindSocket(want, &fd);
    answer->number = fd.Release();
    return failure;
  });
}

// netnsPacket(netns, ifindex, protocol, filter)
napi_value NetnsPacket(napi_env env, napi_callback_info info) {
  Arguments in(env, info);
  void* data = nullptr;
  size_t size = 0;
  std::vector<uint8_t> filter;
  if (napi_get_buffer_info(env, in.values[3], &data, &size) == napi_ok && size > 0) {
    filter.assign(static_cast<uint8_t*>(data), static_cast<uint8_t*>(data) + size);
  }
  const int ifindex = static_cast<int>(in.Double(1));
  const uint16_t protocol = static_cast<uint16_t>(in.Double(2));
  return RunInside(in, [ifindex, protocol, filter = std::move(filter)](Answer* answer) {
    Fd fd;
    Failure failure = OpenPacket(ifindex, protocol, filter, &fd);
    answer->number = fd.Release();
    return failure;
  });
}

void DeliverEvents(napi_env env, Addon* addon, uint32_t id) {
  auto found = addon->sockets.find(id);
  if (found == addon->sockets.end()) return;
  Events events = found->second.socket->Take();
  if (!found->second.closing.empty()) return;
  napi_value function = nullptr;
  napi_get_reference_value(env, found->second.on_events, &function);
  napi_value arguments[2] = {Bytes(env, std::move(events.data)), Boolean(env, events.lost)};
  if (napi_call_function(env, Undefined(env), function, 2, arguments, nullptr) == napi_pending_exception) {
    napi_value error = nullptr;
    if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_fatal_exception(env, error);
  }
}

void Ended(napi_env env, Addon* addon, uint32_t id) {
  auto found = addon->sockets.find(id);
  if (found == addon->sockets.end()) return;
  Open open = std::move(found->second);
  addon->sockets.erase(found);
  open.socket->Join();
  if (open.on_events != nullptr) {
    napi_delete_reference(env, open.on_events);
    addon->Release();
  }
  for (napi_deferred deferred : open.closing) {
    addon->Release();
    napi_resolve_deferred(env, deferred, Undefined(env));
  }
}

// openSocket({protocol, netns, rcvbuf, sndbuf, deadlineMs, backlog, groups}, onEvents?) -> {errno, syscall, id, port}
napi_value OpenSocket(napi_env env, napi_callback_info info) {
  Arguments in(env, info);
  Addon* addon = in.addon;
  Options options;
  options.protocol = static_cast<int>(in.ToDouble(in.Field("protocol")));
  options.netns = in.ToText(in.Field("netns"));
  options.rcvbuf = static_cast<int>(in.ToDouble(in.Field("rcvbuf")));
  options.sndbuf = static_cast<int>(in.ToDouble(in.Field("sndbuf")));
  options.deadline_ms = static_cast<int>(in.ToDouble(in.Field("deadlineMs")));
  options.backlog = static_cast<size_t>(in.ToDouble(in.Field("backlog")));
  napi_value groups = in.Field("groups");
  uint32_t count = 0;
  if (napi_get_array_length(env, groups, &count) != napi_ok) count = 0;
  for (uint32_t i = 0; i < count; i++) {
    napi_value group = nullptr;
    napi_get_element(env, groups, i, &group);
    options.groups.push_back(static_cast<uint32_t>(in.ToDouble(group)));
  }
  const uint32_t id = addon->next_id++;
  Open& open = addon->sockets[id];
  if (!options.groups.empty()) {
    napi_create_reference(env, in.values[1], 1, &open.on_events);
    addon->Hold();
  }
  napi_deferred deferred;
  napi_value promise = Promise(env, &deferred);
  addon->Hold();
  auto opened = [addon, deferred, id](napi_env e, Failure failure, uint32_t port) {
    addon->Release();
    napi_value out = Outcome(e, failure);
    Set(e, out, "id", Number(e, id));
    Set(e, out, "port", Number(e, port));
    napi_resolve_deferred(e, deferred, out);
  };
  Socket::Callbacks callbacks;
  callbacks.opened = [addon, opened](Failure failure, uint32_t port) {
    addon->Post([opened, failure, port](napi_env e) { opened(e, failure, port); });
  };
  callbacks.readable = [addon, id] { addon->Post([addon, id](napi_env e) { DeliverEvents(e, addon, id); }); };
  callbacks.ended = [addon, id] { addon->Post([addon, id](napi_env e) { Ended(e, addon, id); }); };
  open.socket = std::make_shared<Socket>(std::move(options), std::move(callbacks));
  if (int code = open.socket->Start()) {
    opened(env, {code, "pthread_create"}, 0);
    Ended(env, addon, id);
  }
  return promise;
}

// submit(id, kind, buffer, length) -> {errno, syscall, replies, covered, interrupted}
napi_value Submit(napi_env env, napi_callback_info info) {
  Arguments in(env, info);
  Addon* addon = in.addon;
  napi_deferred deferred;
  napi_value promise = Promise(env, &deferred);
  void* data = nullptr;
  size_t size = 0;
  Job job{};
  napi_ref buffer = nullptr;
  auto found = addon->sockets.find(static_cast<uint32_t>(in.Double(0)));
  if (napi_get_buffer_info(env, in.values[2], &data, &size) == napi_ok) {
    napi_create_reference(env, in.values[2], 1, &buffer);
  }
  job.kind = static_cast<Job::Kind>(static_cast<int>(in.Double(1)));
  job.data = static_cast<uint8_t*>(data);
  job.length = static_cast<size_t>(in.Double(3));
  auto settle = [addon, deferred, buffer](napi_env e, Result& result) {
    addon->Release();
    if (buffer != nullptr) napi_delete_reference(e, buffer);
    napi_value out = Outcome(e, result.failure);
    Set(e, out, "replies", Bytes(e, std::move(result.replies)));
    Set(e, out, "covered", Number(e, result.covered));
    Set(e, out, "interrupted", Boolean(e, result.interrupted));
    napi_resolve_deferred(e, deferred, out);
  };
  addon->Hold();
  if (found == addon->sockets.end() || job.length > size) {
    Result refused;
    refused.failure = {found == addon->sockets.end() ? ECANCELED : EINVAL, "submit"};
    settle(env, refused);
    return promise;
  }
  job.done = [addon, settle](Result result) {
    auto kept = std::make_shared<Result>(std::move(result));
    addon->Post([settle, kept](napi_env e) { settle(e, *kept); });
  };
  found->second.socket->Submit(std::move(job));
  return promise;
}

// closeSocket(id) -> undefined, when the thread is gone; may be repeated
napi_value CloseSocket(napi_env env, napi_callback_info info) {
  Arguments in(env, info);
  napi_deferred deferred;
  napi_value promise = Promise(env, &deferred);
  auto found = in.addon->sockets.find(static_cast<uint32_t>(in.Double(0)));
  if (found == in.addon->sockets.end()) {
    napi_resolve_deferred(env, deferred, Undefined(env));
    return promise;
  }
  in.addon->Hold();
  found->second.closing.push_back(deferred);
  found->second.socket->Stop();
  return promise;
}

void RunClosure(napi_env env, napi_value, void*, void* data) {
  std::unique_ptr<Closure> closure(static_cast<Closure*>(data));
  if (env != nullptr) (*closure)(env);
}

// The environment ends (process exit, or a worker_thread early): no thread of ours may outlive it. Runs before the
// queue's own clean-up, which was registered earlier.
void CleanUp(void* data) {
  Addon* addon = static_cast<Addon*>(data);
  for (auto& [id, open] : addon->sockets) open.socket->Stop();
  for (auto& [id, open] : addon->sockets) open.socket->Join();
  for (Task& task : addon->tasks) task.thread.Join();
}

napi_value Init(napi_env env, napi_value exports) {
  Addon* addon = new Addon{};
  addon->env = env;
  napi_create_threadsafe_function(env, nullptr, nullptr, String(env, "weft netlink"), 0, 1, nullptr, nullptr, nullptr,
                                  RunClosure, &addon->queue);
  napi_unref_threadsafe_function(env, addon->queue);
  napi_set_instance_data(env, addon, [](napi_env, void* data, void*) { delete static_cast<Addon*>(data); }, nullptr);
  napi_add_env_cleanup_hook(env, CleanUp, addon);
  const struct {
    const char* name;
    napi_callback function;
  } table[] = {{"openSocket", OpenSocket},   {"submit", Submit},           {"closeSocket", CloseSocket},
               {"netnsCreate", NetnsCreate}, {"netnsDelete", NetnsDelete}, {"netnsOpenFd", NetnsOpenFd},
               {"netnsInode", NetnsInode},   {"netnsRead", NetnsRead},     {"netnsWrite", NetnsWrite},
               {"netnsSocket", NetnsSocket}, {"netnsPacket", NetnsPacket}};
  for (const auto& entry : table) {
    napi_value function = nullptr;
    napi_create_function(env, entry.name, NAPI_AUTO_LENGTH, entry.function, nullptr, &function);
    Set(env, exports, entry.name, function);
  }
  return exports;
}

}  // namespace
}  // namespace weft

NAPI_MODULE_INIT() { return weft::Init(env, exports); }
