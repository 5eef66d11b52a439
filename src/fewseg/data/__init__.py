"""Data sets, and everything that is read of them for training, evaluation and segmenting.

source       what a data set is: the contract ImageSource, folds of base and novel classes
index        how many pixels of which class every image holds, counted once and cached
images       photos, masks and label maps as files
transforms   how an image and its labels become tensors, with augmentation
dataset      episodes and base-class samples as torch data sets, and their loader
division     how one's own data is divided into folds, training and test images
download     public data sets, fetched from their hosts
sets/        a data set = a file         scenes/       the pictures of the built-in data set
episodes/    how episodes are drawn      annotations/  exports of annotation tools
inspect/     checks, counts and a contact sheet
"""
