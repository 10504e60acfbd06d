// Keys of caches, made of parts that may be secret or long.
#ifndef OCIFS_FETCH_HASHED_KEY_H_
#define OCIFS_FETCH_HASHED_KEY_H_

#include <string>
#include <string_view>

#include "store/digest.h"
#include "store/text.h"

namespace ocifs::fetch {

// Equal keys mean equal sequences of parts; the key holds none of them.
class HashedKey {
 public:
  HashedKey& Add(std::string_view part) {
    text_ += std::to_string(part.size());
    text_ += ':';
    text_ += part;
    return *this;
  }
  // Of what was added so far.
  std::string Hash() const { return store::Digest::Of(store::AsBytes(text_)).hex(); }

 private:
  std::string text_;
};

}  // namespace ocifs::fetch

#endif  // OCIFS_FETCH_HASHED_KEY_H_
