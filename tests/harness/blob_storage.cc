#include "tests/harness/blob_storage.h"

#include <utility>

#include "store/digest.h"
#include "store/text.h"

namespace ocifs::testing {
namespace {

using store::MutexLock;

std::string HexOf(const std::string& text) {
  return store::Digest::Of(store::AsBytes(text)).ToString().substr(7);
}

ServerResponse XmlError(int status, const std::string& code, const std::string& message) {
  return {.status = status,
          .headers = {{"Content-Type", "application/xml"}},
          .body = std::make_shared<const std::string>(
              "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>" + code +
              "</Code><Message>" + message + "</Message></Error>")};
}

}  // namespace

BlobStorage::BlobStorage(BlobStorageOptions options)
    : options_(options),
      server_([this](const ServerRequest& request) { return Handle(request); }, options.transport) {
}

std::string BlobStorage::url() const {
  return (authority_pem().empty() ? "http://" : "https://") + host();
}

std::string BlobStorage::Sign(const std::string& key, std::shared_ptr<const std::string> bytes) {
  const MutexLock lock(mutex_);
  const std::string signature = HexOf(std::to_string(objects_.size()) + " " + key);
  const std::string path = "/bucket/" + key;
  objects_[signature] = {path, std::move(bytes), options_.uses_per_url};
  return url() + path +
         "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=1200&X-Amz-Signature=" + signature;
}

void BlobStorage::ExpireUrls() {
  const MutexLock lock(mutex_);
  for (auto& [signature, object] : objects_) object.uses_left = 0;
}
size_t BlobStorage::urls_signed() const {
  const MutexLock lock(mutex_);
  return objects_.size();
}
void BlobStorage::Inject(Fault fault) {
  const MutexLock lock(mutex_);
  faults_.Add(std::move(fault));
}
void BlobStorage::ClearFaults() {
  const MutexLock lock(mutex_);
  faults_.Clear();
}
std::vector<std::string> BlobStorage::violations() const {
  const MutexLock lock(mutex_);
  return violations_;
}
std::vector<ServerRequest> BlobStorage::requests() const {
  const MutexLock lock(mutex_);
  return requests_;
}
std::vector<std::string> BlobStorage::ranges() const {
  const MutexLock lock(mutex_);
  return RangesOf(requests_);
}

ServerResponse BlobStorage::Handle(const ServerRequest& request) {
  const MutexLock lock(mutex_);
  requests_.push_back(request);
  const auto violation = [&](const std::string& why) OCIFS_NO_ANALYSIS {
    violations_.push_back(request.method + " " + request.path + ": " + why);
  };
  for (const auto* name : {"authorization", "proxy-authorization", "cookie"}) {
    if (!request.Header(name).empty()) {
      violation(name);
      return XmlError(400, "InvalidArgument", "Only one auth mechanism allowed");
    }
  }
  const auto object = objects_.find(request.Query("X-Amz-Signature").value_or(""));
  if (object == objects_.end() || object->second.path != request.path) {
    violation("signature");
    return XmlError(403, "SignatureDoesNotMatch", "The request signature does not match");
  }
  if (request.method != "GET") {
    violation("method");
    return XmlError(403, "SignatureDoesNotMatch", "The request signature does not match");
  }
  SignedObject& found = object->second;
  if (found.uses_left == 0) return XmlError(403, "AccessDenied", "Request has expired");
  if (found.uses_left > 0) --found.uses_left;
  const Fault* const fault = faults_.Strike(request);
  ServerResponse response =
      ServeBytes(request, found.bytes, "\"" + HexOf(found.path).substr(0, 32) + "\"",
                 {{"Content-Type", "binary/octet-stream"}, {"Server", "AmazonS3"}},
                 fault != nullptr ? fault->ranges.value_or(options_.ranges) : options_.ranges);
  return fault != nullptr ? WithFault(*fault, std::move(response)) : response;
}

}  // namespace ocifs::testing
