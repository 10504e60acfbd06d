#include "store/layer.h"

namespace ocifs::store {

void Layer::Add(const TarEntry& entry, std::span<const ChunkRef> chunks) {
  uint32_t xattrs = 0;
  if (!entry.xattrs.empty()) {
    xattrs_.push_back(entry.xattrs);
    xattrs = static_cast<uint32_t>(xattrs_.size());
  }
  records_.push_back(Record{.attributes = entry.attributes,
                            .path_offset = names_.size(),
                            .path_length = static_cast<uint32_t>(entry.path.size()),
                            .link_length = static_cast<uint32_t>(entry.link_target.size()),
                            .first_chunk = chunks_.size(),
                            .chunk_count = static_cast<uint32_t>(chunks.size()),
                            .xattrs = xattrs,
                            .is_hard_link = entry.is_hard_link});
  names_.append(entry.path).append(entry.link_target);
  chunks_.insert(chunks_.end(), chunks.begin(), chunks.end());
}

Layer::Entry Layer::At(size_t position) const {
  const Record& record = records_.at(position);
  const std::string_view names(names_);
  return Entry{
      .path = names.substr(record.path_offset, record.path_length),
      .link_target = names.substr(record.path_offset + record.path_length, record.link_length),
      .attributes = &record.attributes,
      .is_hard_link = record.is_hard_link,
      .chunks = std::span(chunks_).subspan(record.first_chunk, record.chunk_count),
      .xattrs = record.xattrs == 0 ? nullptr : &xattrs_[record.xattrs - 1]};
}

}  // namespace ocifs::store
