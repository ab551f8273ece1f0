"""`report`: a bundle as one self-contained HTML page.

gather    everything that is read and measured, once                  a bundle -> Facts
facts     what a section may know; what could not be measured, and why
layers    kernel calls grouped by the layer they do the work of
network   the network's layers as a graph in blocks                   an ONNX -> Network
layered   where a block's boxes and lines go                          a graph -> coordinates
markup    elements, escaped; pieces: tables, tiles, figures
drawing   axes and marks of every chart
sections  one file a section, in the order of a reader's questions
frame     styles, head, links: what every page is set in
write     the report: its summary, its sections, the file
compared  `compare` as a page, from its document alone
"""
